"""Why a raw file is not used."""


class FrameIgnored(Exception):
    """A raw frame that is not for this job.

    Parameters
    ----------
    code : str
        One word in capitals, e.g. ``SPECTRUM``.
    text : str
        What was found, in words.
    """

    status = "IGNORED"

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class FrameUnusable(FrameIgnored):
    """A raw frame that would be for this job but cannot be used."""

    status = "REJECTED"
