"""Damaged products, after a power cut, a disk error or a mistake, are made again.

At its start a run checks each product that its rules may have written. One whose size and times are
as at the end of an earlier run is intact; any other is read, and removed if it is empty, truncated,
or does not match its checksum, so that Snakemake makes it again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lib.core.contents import ContentRecord, Stamp, checksum, sealed, stamp_of, unsealed
from lib.core.files import atomic_path, partial_path
from lib.core.pipeline import PIPELINE
from lib.frame.damage import damage_of_fits, damage_of_text
from lib.night.campaign import Campaign
from lib.night.nightlog import NightLog
from lib.night.plan import Plan
from lib.report.frametable import table_is_damaged
from lib.report.run import finish_run

from .commandline import only_looks
from .made import DAMAGED
from .paths import Claim, tell

RECORD = ".products.json"
"""Name in `imdir` of the record of intact products."""

TOLD = 10
"""Maximum number of damaged products listed on the console."""

LONG = 1 << 30
"""[byte] Reading more than this is announced, because it takes long."""


def product_names(night: NightLog, plan: Plan) -> tuple[list[str], list[str]]:
    """Return the names of all files that the rules may write in `imdir`.

    Returns
    -------
    lasting : list of str
        Products that are kept.
    intermediate : list of str
        Frames of all steps but the last, which `rmifiles` removes.
    """
    lasting = [f"{name}.fits" for name in (*night.biases, *night.darks, *night.flats, *plan.skies)]
    *early, last = (rule for rule in PIPELINE.frame_rules if rule not in plan.left_out)
    lasting += [f"{plan.prefix(last)}{frame}.fits" for frame in plan.stack_of]
    lasting += [*plan.coadds, *plan.target_tables, *plan.differences]
    for stack in plan.stacks:
        lasting += [f"coadd{stack}{end}.fits" for end in (".weight", ".cat")]
        lasting += [f"qa/{step}/{stack}.{end}" for step in ("astrometry", "stack")
                    for end in ("json", "png")]  # fmt: skip
    for target in plan.targets:
        lasting += [f"refcat/{target}.ecsv", f"qa/lightcurve/{target}.png"]
        lasting += [f"qa/candidates/{target}.jpg"] if plan.with_template else []
    lasting += [f"refcat/{stack}.template.fits" for stack in plan.surveyed]
    lasting.append("night.html")
    return lasting, [
        f"{plan.prefix(rule)}{frame}.fits" for frame in plan.stack_of for rule in early
    ]


def names_over_nights(campaign: Campaign) -> list[str]:
    """Return the names of all products over several nights and of parts of nights."""
    names = []
    for stack in campaign.slices:
        names += [f"coadd{stack}{end}.fits" for end in ("", ".weight", ".cat")]
        names += [f"qa/stack/{stack}.{end}" for end in ("json", "png")]
    names += [f"diff{stack}{end}.fits" for stack in campaign.compared for end in ("", ".weight")]
    return [*names, *campaign.tables, *campaign.light_curves]


def products_by_folder(campaign: Campaign) -> dict[str, tuple[list[str], list[str]]]:
    """Return the names of all files that a run may write, by folder; see `product_names`.

    Settled nights are left out.
    """
    found = {
        folder: product_names(night.log, night.plan) for folder, night in campaign.open.items()
    }
    lasting, intermediate = found.get("", ([], []))
    over = names_over_nights(campaign)
    if over or "" in found:
        found[""] = (list(dict.fromkeys([*lasting, *over])), intermediate)
    return found


def check_products(campaign: Campaign, config: Mapping[str, Any], argv: Sequence[str]) -> list[str]:
    """Check the products before Snakemake uses them, and restore frames.ecsv.

    Parameters
    ----------
    campaign : lib.night.campaign.Campaign
        All nights of the run.
    config : dict
        Checked by `lib.engine.config.check_config`.
    argv : sequence of str
        Command line of Snakemake.

    Returns
    -------
    list of str
        Paths of the products that this run must make again, in addition to missing ones.
    """
    imdir = config["imdir"]
    if not Claim(imdir).is_free():
        return []
    runs, wanted_again = not only_looks(argv), []
    for folder, (lasting, intermediate) in products_by_folder(campaign).items():
        place = f"{imdir}/{folder}".rstrip("/")
        products = Products(place, [*lasting, *intermediate])
        damaged = products.check(remove=runs)
        if not runs:
            DAMAGED.update(f"{place}/{name}" for name in damaged)
        night = campaign.nights.get(folder)
        if night and runs and table_is_damaged(Path(place) / "frames.ecsv"):
            tell(f"{place}/frames.ecsv is not as it was written: made again")
            finish_run(night.log, night.plan, place)
        wanted = {*lasting} if config["rmifiles"] else {*products.names}
        again = {*products.again, *(damaged if not runs else ())}
        wanted_again += [f"{place}/{name}" for name in sorted(again) if name in wanted]
    return [] if any(word.startswith("--allowed-rules") for word in argv) else wanted_again


class Products:
    """The products in an `imdir`, and which of them are known to be intact.

    Parameters
    ----------
    imdir : path-like
    names : iterable of str
        Names in `imdir` of all products that may exist.
    """

    def __init__(self, imdir: str | os.PathLike[str], names: Iterable[str]) -> None:
        self.imdir = Path(imdir)
        self.names = list(names)
        try:
            record = unsealed((self.imdir / RECORD).read_bytes())
        except OSError:
            record = {}
        self.whole: dict[str, list[int]] = record.get("whole", {})
        self.again: list[str] = record.get("again", [])

    def check(self, remove: bool) -> dict[str, str]:
        """Check all products; report damaged ones, and remove them.

        Parameters
        ----------
        remove : bool
            Whether a run follows that makes them again.

        Returns
        -------
        dict of str to str
            Name -> damage.
        """
        there = {name: stamp for name in self.names if (stamp := self._stamp(name))}
        brought_back = self._bring_back_from_the_future(there)
        doubtful = [name for name, stamp in there.items() if self.whole.get(name) != list(stamp)]
        size = sum(there[name][0] for name in doubtful)
        if size > LONG:
            tell(
                f"{len(doubtful)} products ({size / 1e9:.1f} GB) have changed since: checking them"
            )
        sums = ContentRecord(self.imdir)
        sums.find("")  # read once, before the threads need it
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            found = pool.map(lambda name: damage(self.imdir / name, name, sums), doubtful)
            damaged = {name: why for name, why in zip(doubtful, found, strict=True) if why}
        for name in doubtful:
            if name not in damaged:
                self.whole[name] = list(there[name])
        self._tell(damaged, remove)
        if remove:
            for name in damaged:
                (self.imdir / name).unlink(missing_ok=True)
            self.again = sorted({*self.again, *damaged})
        self.again = [one for one in self.again if not (self.imdir / one).exists()]
        if doubtful or brought_back:
            self._save()
        return damaged

    def settle(self) -> None:
        """Record all products as intact: a run has ended, and they are on disk."""
        for name in self.names:
            stamp = self._stamp(name)
            if stamp:
                self.whole[name] = list(stamp)
            else:
                self.whole.pop(name, None)
        self.again = [one for one in self.again if one not in self.whole]
        self._save()

    def _stamp(self, name: str) -> Stamp | None:
        try:
            return stamp_of(f"{self.imdir}/{name}")
        except OSError:
            return None

    def _save(self) -> None:
        try:
            with atomic_path(self.imdir / RECORD) as beside:
                beside.write_text(sealed({"whole": self.whole, "again": self.again}))
        except OSError:  # without a record they are read again
            return

    def _tell(self, damaged: dict[str, str], remove: bool) -> None:
        then = "made again" if remove else "the next run makes it again"
        for name in list(damaged)[:TOLD]:
            tell(f"{self.imdir}/{name} is damaged ({damaged[name]}): {then}")
        if len(damaged) > TOLD:
            tell(f"{len(damaged) - TOLD} more products are damaged: {then}")

    def _bring_back_from_the_future(self, there: dict[str, Stamp]) -> int:
        """Reset the times of products dated in the future by a wrong clock to the present.

        Otherwise what is made from them would always be older than they are, and be made again and
        again.
        """
        now = self._now()
        late = [name for name, stamp in there.items() if stamp[1] > now]
        for name in late:
            known = self.whole.get(name) == list(there[name])
            os.utime(self.imdir / name, ns=(now, now))
            there[name] = stamp_of(self.imdir / name)
            if known:
                self.whole[name] = list(there[name])
        return len(late)

    def _now(self) -> int:
        """Return the time [ns] by the clock of the file system, which may not be this machine's."""
        probe = partial_path(self.imdir / "now")
        try:
            probe.touch()
            return probe.stat().st_mtime_ns
        except OSError:
            return time.time_ns()
        finally:
            probe.unlink(missing_ok=True)


def damage(path: Path, name: str, sums: ContentRecord) -> str:
    """Return the damage of a product; '' for an intact one.

    Parameters
    ----------
    path : Path
    name : str
        Name in `imdir`.
    sums : ContentRecord
        Checksums recorded by jobs for files other than FITS, which have their own.
    """
    try:
        if path.suffix == ".fits":
            return damage_of_fits(path)
        why = damage_of_text(path)
        known = sums.find(f"made:{name}").get("sum")
        if not why and known and known != checksum(path):
            why = "it is not as it was written"
    except OSError as error:
        return error.strerror or "it cannot be read"
    return why
