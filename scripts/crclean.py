"""Cosmic rays: found by their sharp edges, flagged in the mask and repaired in the image."""

import numpy as np
from lib.frames import BAD, COSMIC, INTERPOLATED, NODATA, SATURATED, Frame, read_frame
from lib.steps import process


def clean_cosmic_rays(
    image,
    mask,
    *,
    background,
    readnoise,
    saturate,
    gain=1.0,
    sigma=4.5,
    sigfrac=0.3,
    objlim=5.0,
    iterations=4,
):
    """Find and repair cosmic rays by Laplacian edge detection.

    L.A.Cosmic (van Dokkum 2001, PASP 113, 1420) as implemented by astroscrappy. Its noise
    model needs the photons of the sky, so the level subtracted before is handed back.

    Parameters
    ----------
    image : ndarray of float32, shape (ny, nx)
        Sky-subtracted.
    mask : ndarray of uint8, shape (ny, nx)
    background : float or ndarray of float32
        What was subtracted as sky, in the unit of the image.
    readnoise : float
        Electrons.
    saturate : float
        Stored value at which pixels saturate.
    gain : float
        Electrons per unit of the image.
    sigma, sigfrac, objlim : float
        Threshold of the edge, lower one for its neighbours, contrast against fine structure.
    iterations : int

    Returns
    -------
    image : ndarray of float32, shape (ny, nx)
        Cosmic rays replaced by the median of the good pixels around, in the input's unit.
    mask : ndarray of uint8, shape (ny, nx)
        With COSMIC and INTERPOLATED set there.
    number : int
        Pixels flagged.
    """
    from astroscrappy import detect_cosmics

    unusable = mask & (BAD | SATURATED | NODATA) > 0
    exposed = np.ascontiguousarray((image + background) * np.float32(gain), np.float32)
    flagged, cleaned = detect_cosmics(
        exposed,
        inmask=unusable,
        gain=1.0,
        readnoise=readnoise,
        satlevel=float((saturate + np.median(background)) * gain),
        sigclip=sigma,
        sigfrac=sigfrac,
        objlim=objlim,
        niter=iterations,
        sepmed=True,
        cleantype="meanmask",
        fsmode="median",
        verbose=False,
    )
    flagged &= ~unusable
    image = np.where(flagged, cleaned / np.float32(gain) - background, image)
    mask = mask | np.where(flagged, np.uint8(COSMIC | INTERPOLATED), np.uint8(0))
    return image, mask, int(flagged.sum())


def crclean_frame(frame, sky=None, **settings):
    """Clean a frame of cosmic rays; header NCOSMIC tells how many pixels were flagged.

    Parameters
    ----------
    frame : Frame
        Sky-subtracted.
    sky : Frame, optional
        Master sky that was subtracted.
    **settings
        See `clean_cosmic_rays`.
    """
    header = frame.header
    background = np.float32(header["SKYSUB"])
    if sky is not None and not sky.rejected:
        background = background * sky.image
    image, mask, number = clean_cosmic_rays(
        frame.image,
        frame.mask,
        background=background,
        readnoise=header["RDNOISE"],
        saturate=header["SATURATE"],
        gain=header["GAIN"],
        **settings,
    )
    header["NCOSMIC"] = (number, "pixels flagged as cosmic rays")
    return Frame(image, mask, header)


if "snakemake" in globals():
    path = snakemake.input.get("sky")
    settings = dict(snakemake.params.settings)
    process(
        "crclean",
        snakemake.params.version,
        snakemake.input.frame,
        snakemake.output[0],
        lambda frame: crclean_frame(frame, read_frame(path) if path else None, **settings),
        log_path=snakemake.log[0],
        parameters=settings,
    )
