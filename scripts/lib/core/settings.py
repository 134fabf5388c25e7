"""Settings of a reduction: every key of config.yaml, its type, its bounds and its default.

The one source of the configuration. `lib.engine.config` checks what a user gives against it;
the sections reach the steps as the classes below.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen

REFERENCE_SOURCES = ("online", "offline", "none")
"""Values of `refcat` that are no path of a table."""


EXPORT_ENDINGS = {
    "aavso": "aavso.txt",
    "gcn": "gcn.txt",
    "skyportal": "skyportal.json",
    "tns": "tns.json",
    "ades": "psv",
    "votable": "vot",
}
"""Formats of exported light curves, and the endings of their files."""

TABLE_ENDINGS = {"votable": "vot", "parquet": "parquet"}
"""Formats in which whole tables are exported, and the endings of their files."""

EXPORT_NEEDS = {
    "aavso": ("aavso_code",),
    "skyportal": ("skyportal_instrument",),
    "tns": ("name", "tns_group", "tns_instrument"),
    "ades": ("name", "mpc_code", "telescope_aperture"),
}
"""Keys of section ``observer`` that a format cannot do without."""


@dataclass(frozen=True)
class Write:
    """What completes "write ..." in the message about a wrong value."""

    text: str


@dataclass(frozen=True)
class MaxAgeSettings:
    """Section ``max_age``: of masters of other nights and of ready masters that bear a date."""

    bias: Annotated[float, Gt(0)] | None = None
    """[d] of a master bias; nothing: any."""
    dark: Annotated[float, Gt(0)] | None = None
    """[d] of a master dark."""
    flat: Annotated[float, Gt(0)] | None = None
    """[d] of a master flat."""


@dataclass(frozen=True)
class BiasSettings:
    """Section ``bias``."""

    clip: Annotated[float, Gt(0)] = 4.0
    """[sigma] a pixel this far off the others is left out of the mean."""


@dataclass(frozen=True)
class DarkSettings:
    """Section ``dark``."""

    clip: Annotated[float, Gt(0)] = 4.0
    """[sigma] as above."""
    hot_sigma: Annotated[float, Gt(0)] = 50.0
    """[sigma] a pixel this much above the others' dark current is bad."""


@dataclass(frozen=True)
class FlatSettings:
    """Section ``flat``."""

    amin: Annotated[float, Ge(0), Le(1)] = 0.05
    """[fraction of saturation] flats with a lower median level are left out."""
    amax: Annotated[float, Ge(0), Le(1)] = 0.85
    """[fraction of saturation] and with a higher one."""
    deviant: Annotated[float, Gt(0)] = 0.3
    """[fraction] a pixel this far off the median around it is bad."""
    largest_gradient: Annotated[float, Gt(0)] = 0.05
    """[fraction] a flat whose large-scale shape differs by more from the others' is left out."""
    clip: Annotated[float, Gt(0)] = 4.0
    """[sigma] a pixel this far off the others is left out of the mean."""


@dataclass(frozen=True)
class PrepareSettings:
    """Section ``prepare``."""

    missing_bias: Literal["reject", "ignore"] = "reject"
    """A frame without its bias: reject it, or ignore that."""
    missing_dark: Literal["reject", "ignore"] = "reject"
    """The same for its dark."""
    gain: Literal["header", "measured"] = "header"
    """Gain by header or instrument file, or as measured in the flats of the night."""


@dataclass(frozen=True)
class FlattenSettings:
    """Section ``flatten``."""

    missing_flat: Literal["reject", "unity"] = "reject"
    """A frame without its flat: reject it, or unity to take a flat of 1."""
    low_response: Annotated[float, Ge(0), Le(1)] = 0.3
    """[fraction of the median response] pixels below hold no data."""
    source_threshold: Annotated[float, Gt(0)] = 1.5
    """[sigma] what is above is a source when the sky level is measured."""


@dataclass(frozen=True)
class MakeskySettings:
    """Section ``makesky``."""

    min_frames: Annotated[int, Ge(1)] = 2
    """A sky of fewer frames is not made, each frame's own median is subtracted."""
    smooth: Annotated[
        Literal["auto"] | Annotated[float, Ge(0)], Write("auto or a number of at least 0")
    ] = "auto"
    """[pixels] sigma of the Gaussian that smooths it, 0 for none; auto: 3, but near-infrared
    arrays keep what structure of their pixels is not noise."""
    clip: Annotated[float, Gt(0)] = 3.0
    """[sigma] a pixel this far off the others is left out."""
    sky_passes: Annotated[
        Literal["auto"] | Annotated[int, Ge(1), Le(3)], Write("auto or a whole number from 1 to 3")
    ] = "auto"
    """2: sources found on the sum of the frames are masked and the sky made again; auto: 2 for
    near-infrared arrays, else 1."""
    window: Annotated[float, Gt(0)] = 60
    """[minutes] a near-infrared series that lasts longer gets several skies, for their sky
    changes."""
    window_frames: Annotated[int, Ge(3)] = 8
    """Least number of frames of each of them."""


@dataclass(frozen=True)
class SkysubSettings:
    """Section ``skysub``."""

    order: Annotated[int, Ge(0), Le(4)] = 1
    """Degree of the surface by which a frame's sky differs from the master: 1 a gradient, 0
    none."""
    fringe_scale: Annotated[
        Literal["auto"] | Annotated[int, Ge(0)], Write("auto or a whole number of pixels")
    ] = "auto"
    """[pixels] structure of the master sky below this size, fringes, is scaled to each frame; 0:
    it is not; auto: below 160 pixels, where a frame surely has more or less of it."""


@dataclass(frozen=True)
class CrcleanSettings:
    """Section ``crclean``."""

    method: Literal["auto", "psf", "lacosmic"] = "auto"
    """psf: sharper than any star can be; lacosmic: Laplacian edges that no star can be; auto:
    psf, and both where stars are undersampled."""
    sigma: Annotated[float, Gt(0)] = 5.5
    """[sigma] what makes a pixel a cosmic ray."""
    sigfrac: Annotated[float, Gt(0), Le(1)] = 0.55
    """[fraction of sigma] the same for the neighbours of one."""
    objlim: Annotated[float, Gt(0)] = 3.0
    """lacosmic: contrast against a star's own sharpness; higher spares more stars."""
    iterations: Annotated[int, Ge(1), Le(20)] = 4
    """lacosmic: passes at most."""


@dataclass(frozen=True)
class ReferenceSettings:
    """Section ``reference``."""

    servers: Annotated[
        tuple[Annotated[str, MinLen(1)], ...],
        MinLen(1),
        Write("a list of hosts, such as [vizier.cds.unistra.fr]"),
    ] = ("vizier.cds.unistra.fr", "vizier.cfa.harvard.edu", "vizier.nao.ac.jp", "vizier.iucaa.in")
    """VizieR and its mirrors, in the order they are asked."""
    cutout_servers: Annotated[
        tuple[Annotated[str, MinLen(1)], ...],
        Write("a list of hosts, such as [alasky.cds.unistra.fr]; [] asks none"),
    ] = ("alasky.cds.unistra.fr", "alaskybis.cds.unistra.fr")
    """Servers of hips2fits, for templates from surveys, in the order they are asked."""
    name_servers: Annotated[
        tuple[Annotated[str, MinLen(1)], ...],
        Write("a list of hosts or addresses, or [astropy]; [] asks none"),
    ] = ("astropy",)
    """Sesame, for the position of a target by its name where no frame tells its pointing; astropy:
    the servers that astropy asks."""
    timeout: Annotated[float, Gt(0)] = 60
    """[s] that a server has for one answer."""


@dataclass(frozen=True)
class AstrometrySettings:
    """Section ``astrometry``."""

    detect_threshold: Annotated[float, Gt(0)] = 3.0
    """[sigma] a pixel of a star is this much above the sky."""
    detect_minarea: Annotated[int, Ge(1)] = 5
    """[pixels] that a star covers at least."""
    min_snr: Annotated[float, Ge(0)] = 8.0
    """Fainter stars are not used."""
    min_stars: Annotated[int, Ge(3)] = 6
    """A frame with fewer detected stars is placed by what other frames and its header tell."""
    min_matched: Annotated[int, Ge(3)] = 5
    """A match of fewer stars is not believed."""
    min_contrast: Annotated[float, Ge(1)] = 2.0
    """Matched stars over those expected by chance: fewer are not believed."""
    log_chance: Annotated[float, Le(0)] = -6.0
    """[log10] a match that chance makes more often is not believed."""
    search_radius: Annotated[float, Gt(0)] | None = None
    """[deg] how far off a pointing may be; nothing: as the instrument says."""
    wide_radius: Annotated[float, Gt(0)] = 0.4
    """[deg] the same in the second search, without assuming scale or rotation; Gaia is asked as
    far."""
    scale_error: Annotated[float, Ge(0), Le(0.5)] = 0.08
    """[fraction] how far off the pixel scale may be in that search."""
    degree: Literal["auto", 1, 2, 3, 4, 5, 6, 7] = "auto"
    """Distortion polynomial: auto, or 1 to 7."""
    match_resolution: Annotated[float, Gt(0)] = 1.0
    """[arcsec] resolution of SCAMP's own matching."""
    timeout: Annotated[float, Gt(0)] = 300
    """[s] for each program run."""


@dataclass(frozen=True)
class StackSettings:
    """Section ``stack``."""

    by: Annotated[
        tuple[Annotated[str, MinLen(1)], ...],
        MinLen(1),
        Write(
            "auto, or a list of night, all, frames, 1h, last1h and the like, such as [night, all]"
        ),
    ] = ("auto",)
    """Which frames of a target and filter make a stack: night, all, frames (each by itself), 1h
    (each hour; also 30min, 2d), last1h (what was taken last); auto: night, and all where there are
    several."""
    combine: Literal["auto", "median", "weighted", "clipped"] = "auto"
    """median (weights 0 or 1), weighted (deepest), clipped (weighted, outliers left out); auto:
    weighted where three frames or more tell outliers, else median."""
    grid: Literal["stack", "target"] = "stack"
    """stack: each coadd on its own grid; target: one grid for all filters of a target."""
    outliers: bool = True
    """Pixels of a frame that the others contradict (rays, satellites) weigh nothing."""
    min_frames: Annotated[int, Ge(1)] = 3
    """A stack of fewer frames is flagged."""
    min_transparency: Annotated[float, Ge(0), Le(1)] = 0.1
    """A frame less transparent, relative to the best, is clouded: rejected."""
    max_ellipticity: Annotated[float, Ge(0), Le(1)] = 0.4
    """A frame of longer stars is trailed: rejected."""
    max_seeing: Annotated[
        Literal["auto"] | Annotated[float, Ge(0)], Write("auto or a number of at least 0")
    ] = "auto"
    """[arcsec] a frame of worse seeing is rejected, 0: none is; auto: where point sources are
    deeper without."""
    min_stars: Annotated[int, Ge(1)] = 1
    """A frame with fewer measured stars is rejected."""
    max_scatter: Annotated[float, Gt(0)] = 0.3
    """[mag] a frame whose stars scatter more about its zero point is rejected."""
    min_weight: Annotated[float, Ge(0), Le(1)] = 0.1
    """median and clipped: a frame of less weight, relative to the best, is left out."""
    max_offset: Annotated[float, Gt(0)] = 1.0
    """[deg] a frame further from the others is left out."""
    detect_sigma: Annotated[float, Gt(0)] = 3.0
    """[sigma] threshold of the stars that are measured in frames."""
    catalogue_sigma: Annotated[float, Gt(0)] = 1.5
    """[sigma] threshold of the source table of the coadd."""
    catalogue_snr: Annotated[float, Ge(0)] = 4.0
    """Least S/N of a source there."""
    table_snr: Annotated[float, Ge(0)] = 5.0
    """Least S/N, in one filter at least, of a source of the joined table."""
    min_area: Annotated[int, Ge(1)] = 5
    """[pixels] that a source covers at least."""
    star_snr: Annotated[float, Gt(0)] = 20
    """Stars of the growth curve and of the seeing."""
    aperture: Annotated[float, Gt(0)] = 1.5
    """[FWHM] radius of the aperture, corrected to total flux by the growth curve."""
    apertures: Annotated[
        tuple[Annotated[float, Gt(0)], ...],
        MinLen(1),
        Write("a list of radii in FWHM, such as [1, 2]"),
    ] = (0.75, 1.0, 1.5, 2.0, 3.0)
    """[FWHM] radii of the apertures in the source table."""
    background_box: Annotated[int, Ge(16)] = 128
    """[pixels] mesh of the background below the sources."""
    saturation_fraction: Annotated[float, Gt(0), Le(1)] = 0.9
    """[fraction of saturation] brighter stars are not used."""
    match_radius: Annotated[float, Gt(0)] = 1.5
    """[arcsec] between a star and its entry in the reference."""
    colour_term: Literal["auto", "off"] = "auto"
    """auto: fitted where the stars support it; off."""
    colour_min_stars: Annotated[int, Ge(3)] = 12
    """Stars that a colour term takes."""
    colour_min_spread: Annotated[float, Ge(0)] = 0.1
    """[mag] spread of their colours that it takes."""
    spatial_term: Literal["auto", "off"] = "auto"
    """auto: a plane in position is given where the stars support it; off."""
    zeropoint_min_stars: Annotated[int, Ge(1)] = 3
    """A coadd with fewer reference stars has no zero point."""
    zeropoint_snr: Annotated[float, Gt(0)] = 10
    """Fainter stars are not used."""
    clip_sigma: Annotated[float, Gt(0)] = 4.0
    """[sigma] combine: clipped."""
    clip_fraction: Annotated[float, Ge(0)] = 0.3
    """[fraction of the flux] the same, spares the cores of stars."""
    memory: Annotated[int, Ge(64)] = 512
    """[MB] that frames kept, and bands of all frames, stay below."""


@dataclass(frozen=True)
class LightcurveSettings:
    """Section ``lightcurve``."""

    position: Literal["auto", "given", "matched"] = "auto"
    """given: where target_radec or the header says; matched: the source within the seeing of it;
    auto: target_radec as given, the pointing of a header matched."""
    bin_snr: Annotated[float, Ge(0)] = 10.0
    """S/N of bins of neighbouring frames; 0: no bins."""
    bin_gap: Annotated[float, Gt(0)] = 6.0
    """[hours] frames further apart are not combined."""
    comparison_stars: Annotated[int, Ge(0)] = 100
    """Comparison stars of a filter, at most."""
    ephemeris_tolerance: Annotated[float, Ge(0)] = 3.0
    """[arcsec] what moves is looked for so far from its ephemeris, and measured where it is seen;
    0: where the ephemeris has it."""


@dataclass(frozen=True)
class DifferenceSettings:
    """Section ``difference``: what is done with a template."""

    before: Annotated[str | None, Write("a date such as 2024-03-01, or nothing")] = None
    """Own coadds serve as templates only if they end before this date (UTC)."""
    images: Annotated[str | None, Write("the path of a directory of images, or nothing")] = None
    """Directory of images of the survey that is the template, searched before servers are asked."""
    method: Literal["auto", "sfft", "zogy", "hotpants"] = "auto"
    """How the template is subtracted; auto: whatever leaves the least noise."""
    convolve: Literal["auto", "template", "coadd"] = "auto"
    """Which image is convolved (not by zogy); auto: the one of better seeing."""
    regions: Annotated[
        Literal["auto"] | Annotated[int, Ge(1), Le(10)],
        Write("auto or a whole number from 1 to 10"),
    ] = "auto"
    """Regions along each axis with a kernel of their own; auto: as many as the stars support."""
    kernel: Annotated[
        Literal["auto"] | Annotated[int, Ge(1), Le(25)],
        Write("auto or a whole number from 1 to 25"),
    ] = "auto"
    """[pixels] half side of the kernel; auto: by the seeing of both images."""
    threshold: Annotated[float, Gt(0)] = 5.0
    """[sigma] least significance of a candidate."""
    score: Annotated[float, Ge(0), Le(1)] = 0.3
    """Candidates of a lower score are in the table, but not counted nor shown on the page."""
    known: Annotated[str | None, Write("the path of a table of positions, or nothing")] = None
    """Table of known objects, as that of targets: name, ra, dec, and time of what moves."""
    injections: Annotated[int, Ge(0), Le(5000)] = 0
    """Point sources put into the difference image to check its limits; 0: none."""
    frames: bool = False
    """Whether the template is subtracted from each frame of a coadd, too."""


@dataclass(frozen=True)
class ObserverSettings:
    """Section ``observer``: what exported files say of who observed with what."""

    name: str = ""
    """Name of the observer, as initials and family name."""
    aavso_code: str = ""
    """Observer code of the AAVSO."""
    mpc_code: str = ""
    """Observatory code of the Minor Planet Center."""
    telescope_aperture: Annotated[float, Ge(0)] = 0.0
    """[m]"""
    telescope_design: Annotated[str, MinLen(1)] = "Reflector"
    """As the Minor Planet Center names it."""
    detector: Literal["CCD", "CMO"] = "CCD"
    """CCD, or CMO for CMOS."""
    skyportal_instrument: Annotated[int, Ge(0)] = 0
    """Number of the instrument in SkyPortal (Fritz)."""
    tns_group: Annotated[int, Ge(0)] = 0
    """Number of the group at the Transient Name Server."""
    tns_instrument: Annotated[int, Ge(0)] = 0
    """Number of the instrument there."""


@dataclass(frozen=True)
class Settings:
    """The whole configuration."""

    datadir: Annotated[
        Annotated[str, MinLen(1)] | Annotated[tuple[Annotated[str, MinLen(1)], ...], MinLen(1)],
        Write("the path of the directory of raw frames, such as ./20220128"),
    ] = "."
    """Directory of the raw frames, or several: a list, a pattern such as raw/2022*; nothing is ever
    written there."""
    recursive: bool = False
    """Look for raw frames in the directories below these, too."""
    nights: Literal["auto", "one"] = "auto"
    """auto: frames belong to the night in which they were taken, noon to noon at the site; one: all
    to one night."""
    imdir: Annotated[
        str,
        MinLen(1),
        Write("the path of a directory for the results, such as ./imredux"),
    ] = "imredux"
    """Directory of everything that is made."""
    instrument: Annotated[
        str,
        MinLen(1),
        Write("auto, the name of an instrument, such as ratir, or the path of a .yaml file"),
    ] = "auto"
    """auto detects it from the headers; or a name of config/instruments, such as ratir; or the
    path of a .yaml file of your own."""
    exclude: Annotated[
        Annotated[str, MinLen(1)], Write("the path of a text file, such as config/exclude.txt")
    ] = "config/exclude.txt"
    """Frames to leave out and why, one a line; a missing file excludes nothing."""
    masters: Annotated[
        str | tuple[Annotated[str, MinLen(1)], ...] | None,
        Write("the path of a directory of master frames, or nothing"),
    ] = None
    """Directory of ready-made master frames (bias, dark, flat), or a list of such, or nothing."""
    max_age: MaxAgeSettings = field(default_factory=MaxAgeSettings)
    nocrclean: bool = False
    """Leave cosmic rays in single frames."""
    nomastersky: bool = False
    """Subtract each frame's own median instead of the master sky."""
    rmifiles: bool = False
    """Remove the frames in between as soon as nothing needs them."""
    quiet: bool = False
    """Say only what went wrong."""
    refcat: Annotated[
        str,
        MinLen(1),
        Write("online, offline, none or the path of a table, such as ./reference.ecsv"),
    ] = "online"
    """online asks the catalogue servers, offline uses what they answered before (refcat_cache),
    none does without, or the path of a table."""
    refcat_cache: Annotated[
        Annotated[str, MinLen(1)], Write("the path of a directory, such as ~/.cache/autoproc")
    ] = "~/.cache/autoproc"
    """Where answers of the servers are kept."""
    customcat: Annotated[str | None, Write("the path of a text table, or nothing")] = None
    """Star catalogue in autoproc's text format, for the filters of customcatfilt only."""
    customcatfilt: Annotated[
        tuple[Literal["u", "g", "r", "i", "z", "y", "B", "V", "R", "I", "J", "H", "K"], ...],
        Write("a list of u, g, r, i, z, y, B, V, R, I, J, H, K, such as [g, r]"),
    ] = ()
    """Filters whose magnitudes come from customcat, as [g, r]."""
    target_radec: Annotated[
        tuple[float | str, ...],
        Write("two degrees such as [150.1, 20.3], or '10:00:24.5 +20:18:00', or nothing"),
    ] = ()
    """Where the target is, as [150.1, 20.3] or ['10:00:24.5', '+20:18:00']; []: where the
    telescope pointed."""
    targets: Annotated[str | None, Write("the path of a table of positions, or nothing")] = None
    """Table of more positions to be measured in all frames (name, ra, dec, optional pmra, pmdec;
    or time, ra, dec of what moves), or nothing."""
    template: Annotated[
        str | dict[str, str] | None,
        Write(
            "own, ps1, legacy, skymapper, the path of a FITS file or of an earlier imdir, with "
            "{target} and {filter} if need be, or these by filter, or nothing"
        ),
    ] = None
    """What coadds are compared with: own (an earlier coadd), ps1, legacy or skymapper (sky
    surveys), a FITS file, a directory of earlier coadds; {target} and {filter} stand in paths; one
    for each filter, as {r: own}; or nothing."""
    export: Annotated[
        tuple[Literal["aavso", "gcn", "skyportal", "tns", "ades", "votable", "parquet"], ...],
        Write(
            "a list of aavso, gcn, skyportal, tns, ades, votable, parquet, such as [gcn, votable]"
        ),
    ] = ()
    """Formats in which light curves, and by votable and parquet the tables of sources, are written
    to exports/; nothing is sent."""
    bias: BiasSettings = field(default_factory=BiasSettings)
    dark: DarkSettings = field(default_factory=DarkSettings)
    flat: FlatSettings = field(default_factory=FlatSettings)
    prepare: PrepareSettings = field(default_factory=PrepareSettings)
    flatten: FlattenSettings = field(default_factory=FlattenSettings)
    makesky: MakeskySettings = field(default_factory=MakeskySettings)
    skysub: SkysubSettings = field(default_factory=SkysubSettings)
    crclean: CrcleanSettings = field(default_factory=CrcleanSettings)
    reference: ReferenceSettings = field(default_factory=ReferenceSettings)
    astrometry: AstrometrySettings = field(default_factory=AstrometrySettings)
    stack: StackSettings = field(default_factory=StackSettings)
    lightcurve: LightcurveSettings = field(default_factory=LightcurveSettings)
    difference: DifferenceSettings = field(default_factory=DifferenceSettings)
    observer: ObserverSettings = field(default_factory=ObserverSettings)
