"""What the page shows of masters, and of frames that lack one."""

from lib.frame.file import read_frame
from lib.report import pictures
from lib.report.numbers import is_number, number


def show_masters(result, imdir, sizes):
    """Make what the page shows of the masters.

    Returns
    -------
    list of dict
        name, kind, status, reason, used, left (list of {frame, why}), noise, picture.
    """
    shown = []
    for name, facts in result.masters.items():
        picture = ""
        frame = read_frame(imdir / f"{name}.fits")
        if frame.image is not None:
            factor = pictures.block_factor(frame.image.shape, sizes.master)
            picture = pictures.encode(
                pictures.linear_grey(pictures.block_mean(frame.image, factor)), 60
            )
        numbers = [
            (words, number(facts.get(key), digits, unit))
            for key, words, digits, unit in (
                ("RDNOISE1", "read noise", 2, " DN"),
                ("NOISE", "pixel scatter", 4, ""),
                ("NHOT", "hot pixels", 0, ""),
                ("NLOW", "pixels of low response", 0, ""),
                ("NFILLED", "pixels filled", 0, ""),
            )
            if is_number(facts.get(key))
        ]
        left = [dict(zip(("frame", "why"), text.split(" ", 1), strict=False))
                for text in facts.get("LEFT", ())]  # fmt: skip
        shown.append(
            {
                "name": name, "status": facts.get("QCSTAT", "OK"), "numbers": numbers,
                "reason": facts.get("QCREASON", ""), "used": len(facts.get("INPUT", ())),
                "inputs": facts.get("INPUT", []), "left": left, "picture": picture,
            }
        )  # fmt: skip
    return shown


def calibration_mismatches(night):
    """Return the science frames that lack a calibration they want, and why none fits.

    Returns
    -------
    list of dict
        frames, kind, reason, candidates (list of {name, why}); frames of one reason together.
    """
    found = {}
    for frame in night.science:
        for kind, note in night.match(frame)["notes"].items():
            found.setdefault((kind, note), []).append(frame)
    shown = []
    for (kind, note), frames in found.items():
        reason, *candidates = note.split("; ")
        named = [text.split(": ", 1) for text in candidates]
        shown.append(
            {
                "kind": kind, "frames": frames, "reason": reason,
                "candidates": [{"name": one[0], "why": one[-1] if len(one) > 1 else ""}
                               for one in named],
            }
        )  # fmt: skip
    return shown
