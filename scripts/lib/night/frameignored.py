"""Exceptions for raw files that are not used."""

from typing import Any

from lib.core.text import shown


class FrameIgnored(Exception):
    """A raw frame that is not part of the job.

    Parameters
    ----------
    code : str
        One word in capitals, e.g. ``SPECTRUM``.
    text : str
        The finding in words.
    told : dict, optional
        Known properties of the frame, by column of the night log.
    """

    status = "IGNORED"

    def __init__(self, code: str, text: str, told: dict[str, Any] | None = None) -> None:
        text = shown(text)
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text
        self.told = told or {}


class FrameUnusable(FrameIgnored):
    """A raw frame that is part of the job but cannot be used."""

    status = "REJECTED"
