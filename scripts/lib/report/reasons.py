"""The meaning of rejection codes."""

WORDS = {
    "BAD_CHECKSUM": "its data are not those of its checksum",
    "BAD_BIAS": "its master bias cannot be used",
    "BAD_DARK": "its master dark cannot be used",
    "BAD_GZIP": "not a whole gzip file",
    "BAD_HEADER": "its header makes no sense",
    "BAD_PHOTOMETRY": "stars do not agree with the other frames",
    "BAD_SEEING": "seeing too bad",
    "CHIP_LEVELS": "chips tied by stars alone",
    "NO_COADD": "there is no coadd to compare",
    "NO_METHOD": "the method of subtraction is not installed",
    "NO_TEMPLATE": "there is no template",
    "TEMPLATE_ELSEWHERE": "the template does not cover the coadd",
    "TEMPLATE_SAME": "the template has frames of the coadd",
    "TEMPLATE_MISMATCH": "stars of coadd and template do not agree",
    "CLOUDY": "too little light came through",
    "CONSTANT": "every pixel is the same",
    "EMPTY": "the file is empty",
    "EXCLUDED": "left out by the user",
    "LEVEL": "level stands apart",
    "LOW_WEIGHT": "weighs too little to help a median",
    "MISSING_KEYWORD": "the header lacks a keyword",
    "NOISE": "noise stands apart",
    "NOT_FITS": "not a FITS file",
    "NOT_NEEDED": "not needed for this camera",
    "NOT_RAW": "the name is not that of a raw frame",
    "NOT_USED": "a kind of frame that is not used",
    "FLAT_UNCERTAIN": "error of the flat",
    "DOUBLE_IMAGES": "each star is there twice",
    "ELONGATED": "elongated stars",
    "FEW_FRAMES": "few frames",
    "EXTENDED_LIGHT": "light more extended than the dither was separated from the sky",
    "SKY_IS_PLANE": "the sky rises towards the target: only a plane was subtracted",
    "NO_ASTROMETRIC_REFERENCE": "positions not tied to a catalogue",
    "NO_BIAS": "no bias fits",
    "NO_COMMON_STARS": "shares no star with the others",
    "NO_DARK": "no dark fits",
    "NO_DATA": "hardly a usable pixel",
    "NO_FINITE_PIXEL": "no pixel holds a number",
    "NO_FLAT": "no flat fits",
    "NO_GAIN": "no gain is known",
    "INCOMPLETE": "still being written",
    "NO_FRAMES": "no frame was fit to be stacked",
    "NO_GOOD_INPUT": "no input was fit for use",
    "NO_IMAGE": "no image in the file",
    "NO_MATCH": "stars do not match the reference",
    "NO_OUTPUT": "the step failed or was stopped",
    "NO_PSF": "no point-spread function",
    "NO_SKY_PIXEL": "no pixel free of sources",
    "NO_ZEROPOINT": "no zero point",
    "OFF_FIELD": "far from the other frames",
    "PRODUCT": "written by autoproc itself",
    "SATURATED": "too many pixels saturated",
    "SCATTERED": "the magnitudes do not agree",
    "SKY_SATURATED": "the sky is saturated",
    "SPECTRUM": "a spectrum",
    "TOO_FEW_FRAMES": "too few frames",
    "TOO_FEW_STARS": "too few stars",
    "TOO_LARGE": "far more pixels than the file can hold",
    "TRAILED": "stars are trailed",
    "TRUNCATED": "the file ends too early",
    "UNEXPECTED": "a header that cannot be interpreted",
    "UNDITHERED": "frames are not dithered",
    "UNREADABLE": "the file cannot be read",
}
"""Meaning of each code."""


def in_words(code: str) -> str:
    """Return the meaning of a code; other text unchanged."""
    if not code.replace("_", "").isalpha() or not code.isupper():
        return code
    return WORDS.get(code, code.replace("_", " ").lower())


def reason_in_words(reason: str) -> str:
    """Return a reason in words: ``NO_FLAT: none of 2 fits`` is "no flat fits: none of 2 fits"."""
    parts = [part.partition(": ") for part in reason.split("; ")]
    return "; ".join(
        in_words(code) + (f": {in_words(numbers)}" if numbers else "")
        if code.isupper() else f"{code}{colon}{numbers}"
        for code, colon, numbers in parts
    )  # fmt: skip
