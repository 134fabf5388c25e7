"""Relative links from the page to the products."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from lib.core.settings import EXPORT_ENDINGS, TABLE_ENDINGS
from lib.night.plan import table_name

CAMPAIGN_PAGE = "campaign.html"
"""Name in `imdir` of the page about all nights."""


@dataclass(frozen=True)
class Link:
    """A file in imdir: description, and address relative to the page."""

    what: str
    href: str


def existing(imdir: Path, files: Iterable[tuple[str, str]]) -> list[Link]:
    """Return links to those files that exist.

    Parameters
    ----------
    imdir : Path
    files : iterable of tuple of str
        Description and path in `imdir` of each file.
    """
    return [Link(what, quote(name)) for what, name in files if (imdir / name).is_file()]


def stack_links(imdir: Path, stack: str) -> list[Link]:
    """Return links to the products of a stack."""
    return existing(
        imdir,
        (
            ("coadd", f"coadd{stack}.fits"),
            ("weight map", f"coadd{stack}.weight.fits"),
            ("source table", f"coadd{stack}.cat.fits"),
            ("zero point (plot)", f"qa/stack/{stack}.png"),
            ("measurements", f"qa/stack/{stack}.json"),
            ("positions (plot)", f"qa/astrometry/{stack}.png"),
            ("log", f"logs/stack/{stack}.log"),
            *((f"source table as {one}", f"exports/coadd{stack}.cat.{end}")
              for one, end in TABLE_ENDINGS.items()),
        ),
    )  # fmt: skip


def target_links(imdir: Path, target: str) -> list[Link]:
    """Return links to the products of all filters of a target."""
    sources = f"exports/{Path(table_name(target)).stem}.sources"
    return existing(
        imdir,
        (
            ("light curve", f"{target}.lightcurve.ecsv"),
            ("light curve (plot)", f"qa/lightcurve/{target}.png"),
            ("light curves of more positions", f"{target}.lightcurves.ecsv"),
            ("their plot", f"qa/lightcurve/{target}.all.png"),
            ("sources in all filters", table_name(target)),
            ("reference stars", f"refcat/{target}.ecsv"),
            *((f"light curve as {one}", f"exports/{target}.{end}")
              for one, end in EXPORT_ENDINGS.items()),
            ("light curve as parquet", f"exports/{target}.lightcurve.parquet"),
            *((f"sources as {one}", f"{sources}.{end}") for one, end in TABLE_ENDINGS.items()),
        ),
    )  # fmt: skip


def campaign_link(folder: str) -> str:
    """Return the address of the page about all nights, relative to that of one night.

    Parameters
    ----------
    folder : str
        Folder of the night in `imdir`; empty for `imdir` itself.
    """
    return f"../{CAMPAIGN_PAGE}" if folder else CAMPAIGN_PAGE


def night_links(imdir: Path) -> list[Link]:
    """Return links to the products of the whole night."""
    return existing(imdir, (("frames.ecsv", "frames.ecsv"), ("configuration", "qa/config.yaml")))
