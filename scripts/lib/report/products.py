"""The files in imdir: listing, JSON files, and headers, which are cached."""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lib.core.contents import sealed, unsealed
from lib.core.files import atomic_path
from lib.core.pipeline import PIPELINE

Cards = dict[str, Any]
"""Cards of a header as plain values; numbered ones as a list under their prefix."""

CACHE_VERSION = 6


FRAME_CARDS = (
    "QCSTAT", "QCSTEP", "QCREASON", "BUNIT", "INSTFILE", "CAMERA", "OBJECT", "TARGET", "FILTER",
    "BAND", "EXPTIME", "DATE-OBS", "MJD-OBS", "AIRMASS", "RA", "DEC", "PIXSCALE", "RAWFILE",
    "FRAME", "BINNING", "READOUT", "GAIN", "RDNOISE", "RAWGAIN", "SATURATE", "SKYCTS", "SKYNOISE",
    "SKYSUB", "SKYMODE", "SKYNOTE", "CTRATE", "NSATUR", "NCOSMIC", "BIASFILE", "BIASSUM",
    "DARKFILE", "DARKSUM", "FLATFILE", "FLATSUM", "SKYFILE", "SKYSUM", "FRNGFILE", "ASTRMS1",
    "ASTRMS2", "ASTRNST", "ASTRCONT", "ASTRCAT", "ASTREPOC", "ASTRDEG", "NAXIS1", "NAXIS2",
    "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2",
)  # fmt: skip
"""Cards read from a frame file."""


MASTER_PREFIXES = PIPELINE.master_prefixes


MASTER_CARDS = (
    "QCSTAT", "QCSTEP", "QCREASON", "INSTFILE", "CAMERA", "FILTER", "BINNING", "READOUT",
    "EXPTIME", "BUNIT", "NCOMBINE", "NLEFTOUT", "RDNOISE1", "NOISE", "LEVEL", "NLOW", "NHOT",
    "SMOOTH", "NFILLED", "BIASFILE", "DARKFILE",
)  # fmt: skip


COADD_CARDS = (
    "QCSTAT", "QCSTEP", "QCREASON", "INSTFILE", "TELESCOP", "INSTRUME", "OBJECT", "TARGET",
    "FILTER", "BAND", "ABSZPT",
    "ABSZPTSC", "ABSZPRMS", "ABSZPERR", "ABSZPNST", "ABSZPCAT", "ABSZPCOL", "ABSZPCTM",
    "ABSZPCTE", "SEEPIX", "SEEING", "LIMMAG", "DATE1", "DATEN", "DATE-OBS", "AIRMASS", "AIRMIN",
    "AIRMAX", "EXPTIME", "TOTALEXP", "MAXEXP", "MINEXP", "NSTACK", "NREJECT", "GAIN", "SATURATE",
    "ASTRMS", "ASTRMS1", "ASTRMS2", "ASTRNST", "ASTRCAT", "PIXSCALE", "RA", "DEC", "NAXIS1",
    "NAXIS2", "CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2",
    "CD2_1", "CD2_2", "CDELT1", "CDELT2", "BUNIT", "ZPSYS", "POINTOFF",
)  # fmt: skip


DIFFERENCE_CARDS = (
    "QCSTAT", "QCREASON", "FILTER", "ZPSYS", "DIFTMPL", "DIFTDATE", "DIFMETH", "DIFCONV", "DIFLIM3",
    "DIFLIM5", "DIFRESID", "DIFPULL", "TGTLIM3", "TGTLIM5", "TGTMAG", "TGTMERR", "TGTSNR",
)  # fmt: skip


FRAME_DIFFERENCE_CARDS = (*DIFFERENCE_CARDS, "FRAME", "MJD-OBS", "EXPTIME")


def list_files(folder: str | Path) -> dict[str, tuple[int, int]]:
    """Return the files in a folder: {name: (mtime [ns], size [byte])}."""
    try:
        with os.scandir(folder) as entries:
            return {
                entry.name: (entry.stat().st_mtime_ns, entry.stat().st_size)
                for entry in entries
                if entry.is_file() and not entry.name.startswith(".")
            }
    except FileNotFoundError:
        return {}


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the content of a JSON file; an empty dict where it is missing, or contains no dict."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_sealed(path: str | Path) -> dict[str, Any]:
    """Return the content of a file written by `lib.core.contents.sealed`; empty if damaged."""
    try:
        return unsealed(Path(path).read_bytes())
    except OSError:
        return {}


def write_if_changed(path: str | Path, text: str) -> bool:
    """Write a text file atomically if its content changes; return whether it was written."""
    path = Path(path)
    try:
        if path.read_text(encoding="utf-8") == text:
            return False
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    with atomic_path(path) as beside:
        beside.write_text(text, encoding="utf-8")
    return True


def cards_of(path: str | Path, keys: Iterable[str], prefixes: Iterable[str] = ()) -> Cards:
    """Return some cards of a primary header as a dict of plain values.

    Parameters
    ----------
    path : path-like
    keys : iterable of str
    prefixes : iterable of str
        Numbered cards (``INPUT1``, ``INPUT2``, ...), returned as a list under the prefix.

    Raises
    ------
    OSError
        The file is not FITS.
    """
    from astropy.io import fits

    header = fits.Header.fromfile(path, padding=False)
    cards: Cards = {}
    for key in keys:
        value = header.get(key)
        if isinstance(value, (str, int, float, bool)) and not (
            isinstance(value, float) and not math.isfinite(value)
        ):
            cards[key] = value.strip() if isinstance(value, str) else value
    for prefix in prefixes:
        texts = cards[prefix] = []
        while (value := header.get(f"{prefix}{len(texts) + 1}")) is not None:
            texts.append(str(value))
    return cards


class HeaderCache:
    """Headers of products, read again only if a file has changed.

    Parameters
    ----------
    imdir : path-like
    """

    def __init__(self, imdir: str | Path) -> None:
        self.imdir = Path(imdir)
        self.path = self.imdir / "qa" / "headers.json"
        stored = read_sealed(self.path)
        self.known = stored.get("files", {}) if stored.get("version") == CACHE_VERSION else {}
        self.files = list_files(imdir)
        self.asked: dict[str, dict[str, Any]] = {}
        self.changed = False

    def get(self, name: str, keys: Iterable[str], prefixes: Iterable[str] = ()) -> Cards:
        """Return the cards of a file in imdir; an empty dict where it is missing or not FITS."""
        if name not in self.files:
            return {}
        stamp = list(self.files[name])
        entry = self.known.get(name)
        if entry is None or entry["stamp"] != stamp:
            from astropy.io import fits

            try:
                cards = cards_of(self.imdir / name, keys, prefixes)
            except (OSError, EOFError, ValueError, KeyError, fits.VerifyError):
                cards = {}
            entry = {"stamp": stamp, "facts": cards}
            self.changed = True
        self.asked[name] = entry
        return entry["facts"]

    def save(self) -> None:
        """Save the headers that were used for the next time."""
        if self.changed or len(self.asked) != len(self.known):
            content = {"version": CACHE_VERSION, "files": self.asked}
            write_if_changed(self.path, sealed(content))
