"""The summary printed at the end of a run: the stacks, and each frame left out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.night.campaign import Campaign
from lib.report.numbers import number
from lib.report.outcomes import NightOutcome, Outcome, StackOutcome
from lib.report.products import COADD_CARDS, Cards, cards_of, read_json
from lib.report.reasons import in_words, reason_in_words

CARD_TEXT = 64
"""Length from which on the text of a card may be truncated [characters]."""


@dataclass
class StackNumbers:
    """Key figures of a stack, for the summary and the page.

    Parameters
    ----------
    stack : str
        ``<target>.<filter>``.
    made, flagged : bool
        Whether the coadd exists, and whether it is flagged.
    used, left, frames : int
        Numbers of frames used, left out, and in total.
    exposure : float
        Total exposure time [s].
    seeing, scale : float
        Seeing [arcsec] and pixel scale [arcsec/pixel].
    zeropoint, error, scatter, limit : float
        Zero point, its error and scatter, and limit [mag].
    system : str
        Magnitude system of zero point and limit, AB or Vega; empty without a zero point.
    positions : float
        Astrometric residual per axis against the catalogue [mas].
    """

    stack: str
    target: str
    filter: str
    band: str
    made: bool
    flagged: bool
    used: int
    left: int
    frames: int
    exposure: float | None
    seeing: float | None
    scale: float | None
    zeropoint: float | None
    error: float | None
    scatter: float | None
    system: str
    zpstars: int | None
    zpsource: str
    limit: float | None
    positions: float | None
    starsused: int | None
    catalogue: str
    note: str


def stack_numbers(stack: str, result: StackOutcome, outcomes: dict[str, Outcome]) -> StackNumbers:
    """Return the key figures of a stack.

    Parameters
    ----------
    stack : str
        ``<target>.<filter>``.
    result : StackOutcome
    outcomes : dict of str to Outcome
    """
    cards, quality = result.cards, result.quality
    target, filter_name = stack.split(".", 1)
    members = [outcomes[frame] for frame in result.frames if frame in outcomes]
    used = cards.get("NSTACK", sum(1 for one in members if one.used))
    scale = pixel_scale(cards)
    seeing = cards.get("SEEPIX")
    rms = [cards[key] for key in ("ASTRMS1", "ASTRMS2", "ASTRMS") if key in cards]
    rms = [value for value in rms if isinstance(value, (int, float))]
    reason = cards.get("QCREASON") or quality.get("reason") or ""
    if len(reason) >= CARD_TEXT and quality.get("flags"):
        reason = "; ".join(quality["flags"])
    note = reason_in_words(str(reason))
    why = quality.get("reference_reason")
    if why and cards.get("ASTRCAT") == "NONE":
        untied = in_words("NO_ASTROMETRIC_REFERENCE")
        note = note.replace(untied, f"{untied} ({why})") if untied in note else f"{note} ({why})"
    return StackNumbers(
        stack=stack,
        target=target,
        filter=filter_name,
        band=cards.get("BAND", ""),
        made=bool(cards),
        flagged=cards.get("QCSTAT") == "REJECTED",
        used=used,
        left=len(members) - sum(1 for one in members if one.used) if cards else 0,
        frames=len(members),
        exposure=cards.get("TOTALEXP", cards.get("EXPTIME")),
        seeing=seeing * scale if seeing and scale else cards.get("SEEING"),
        scale=scale,
        zeropoint=cards.get("ABSZPT"),
        error=cards.get("ABSZPERR"),
        scatter=cards.get("ABSZPTSC"),
        system=cards.get("ZPSYS", "") if "ABSZPT" in cards else "",
        zpstars=cards.get("ABSZPNST"),
        zpsource=cards.get("ABSZPCAT", ""),
        limit=cards.get("LIMMAG"),
        positions=max(rms) if rms else None,
        starsused=cards.get("ASTRNST"),
        catalogue=cards.get("ASTRCAT", ""),
        note=note,
    )


def pixel_scale(cards: Cards) -> float | None:
    """Return the pixel scale from a header [arcsec/pixel], or None."""
    if "CD1_1" in cards:
        cd = [cards.get(key, 0.0) for key in ("CD1_1", "CD1_2", "CD2_1", "CD2_2")]
        return 3600 * math.sqrt(abs(cd[0] * cd[3] - cd[1] * cd[2]))
    if "CDELT1" in cards:
        return 3600 * abs(cards["CDELT1"])
    return cards.get("PIXSCALE")


def summary(night: NightOutcome, imdir: str | Path, page: bool = True, most: int = 12) -> str:
    """Return the summary of a run: the stacks, each frame left out, and remarks.

    Parameters
    ----------
    night : NightOutcome
    imdir : path-like
    page : bool
        Whether the page exists and can be referred to.
    most : int
        Maximum number of stacks and of frames listed; more frames are summarised in one line per
        step and code.
    """
    lines = []
    stacks = [stack_numbers(stack, result, night.frames) for stack, result in night.stacks.items()]
    if stacks:
        head = ("stack", "frames", "exposure", "seeing", "zero point", "limit", "positions")
        table = [head] + [_stack_row(one) for one in stacks[:most]]
        made = sum(1 for one in stacks if one.made)
        lines.append(f"{made} of {len(stacks)} stacks in {imdir}:" if made < len(stacks) else
                     f"{made} stack{'s' * (made != 1)} in {imdir}:")  # fmt: skip
        lines += _columns(table)
        lines += [f"  {one.stack}: {one.note}" for one in stacks[:most] if one.note]
        if len(stacks) > most:
            lines.append(f"  and {len(stacks) - most} stacks more")
    left = night.left_out
    ignored = len(night.ignored)
    if left:
        lines += ["", f"Left out: {len(left)} of {len(night.rows)} frames"]
        if len(left) <= most:
            lines += _columns([(one.frame, one.step, one.reason) for one in left])
        else:
            lines += _columns(_grouped(left)[:most])
            if len(_grouped(left)) > most:
                lines.append(f"  and {len(_grouped(left)) - most} reasons more")
    elif night.rows:
        lines += ["", "No frame was left out."]
    if night.remarks:
        lines += ["", "To be noted:"]
        lines += [f"  {remark}" for remark in night.remarks[:most]]
        if len(night.remarks) > most:
            lines.append(f"  and {len(night.remarks) - most} remarks more, on the page")
    if ignored:
        lines.append(f"Ignored (not imaging): {ignored} file{'s' * (ignored != 1)}.")
    if page:
        lines.append(f"All about the night: {Path(imdir) / 'night.html'}")
    return "\n".join(lines)


def summary_over_nights(campaign: Campaign, imdir: str | Path, most: int = 12) -> str:
    """Return the lines about stacks over several nights and of parts of nights; '' without any.

    Parameters
    ----------
    campaign : lib.night.campaign.Campaign
    imdir : path-like
    most : int
        Maximum number of stacks listed.
    """
    if not campaign.slices:
        return ""
    stacks = []
    for name, frames in campaign.slices.items():
        path = Path(imdir, f"coadd{name}.fits")
        cards = cards_of(path, COADD_CARDS) if path.exists() else {}
        quality = read_json(Path(imdir, "qa", "stack", f"{name}.json"))
        members = {frame: Outcome(frame) for frame in frames}
        stacks.append(stack_numbers(name, StackOutcome(cards, [*frames], {}, quality), members))
    head = ("stack", "frames", "exposure", "seeing", "zero point", "limit", "positions")
    lines = [f"Over nights and parts of nights, in {imdir}:"]
    lines += _columns([head] + [_stack_row(one) for one in stacks[:most]])
    lines += [f"  {one.stack}: {one.note}" for one in stacks[:most] if one.note]
    if len(stacks) > most:
        lines.append(f"  and {len(stacks) - most} stacks more")
    return "\n".join(lines)


def _stack_row(one: StackNumbers) -> tuple[str, ...]:
    if not one.made:
        return (one.stack, f"- of {one.frames}", "not made", "", "", "", "")
    zero = number(one.zeropoint, 3)
    if one.error is not None and zero != "–":
        zero += f" ± {number(one.error, 3)}"
    positions = number(one.positions, 0, " mas")
    if one.catalogue == "NONE":
        positions = "not tied"
    return (
        one.stack,
        f"{one.used} of {one.frames}",
        number(one.exposure, 0, " s"),
        number(one.seeing, 1, '"'),
        zero,
        number(one.limit, 1, f" {one.system}".rstrip()),
        positions,
    )


def _grouped(left: list[Outcome]) -> list[tuple[str, str, str]]:
    """Return one line per step and code for frames left out, for long lists."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for one in left:
        groups.setdefault((one.step, one.reason.partition(":")[0]), []).append(one)
    return [
        (
            f"{len(ones)} frames" if len(ones) > 1 else ones[0].frame,
            step,
            f"{code} ({ones[0].frame} ... {ones[-1].frame})" if len(ones) > 1 else ones[0].reason,
        )
        for (step, code), ones in groups.items()
    ]


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows of a table as lines of aligned columns."""
    widths = [max(len(str(row[i])) for row in table) for i in range(len(table[0]))]
    return [
        "  " + "  ".join(f"{cell!s:<{width}}" for cell, width in zip(row, widths, strict=True))
        .rstrip()
        for row in table
    ]  # fmt: skip
