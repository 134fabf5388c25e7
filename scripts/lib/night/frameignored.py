"""Why a raw file is not used."""

from typing import Any

from lib.core.text import shown


class FrameIgnored(Exception):
    """A raw frame that is not for this job.

    Parameters
    ----------
    code : str
        One word in capitals, e.g. ``SPECTRUM``.
    text : str
        What was found, in words.
    told : dict, optional
        What is known of the frame all the same, by column of the night log.
    """

    status = "IGNORED"

    def __init__(self, code: str, text: str, told: dict[str, Any] | None = None) -> None:
        text = shown(text)
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.told = told or {}


class FrameUnusable(FrameIgnored):
    """A raw frame that would be for this job but cannot be used."""

    status = "REJECTED"
