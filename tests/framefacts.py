"""Facts of frames as a night log gives them, for tests that need some."""

from lib.night.facts import Amplifier, FrameFacts


def made_facts(**changes):
    """Return facts of a science frame; an amplifier may be given as dict."""
    values = {
        "instrument": "test", "camera": "C0", "type": "object", "exptime": 10.0, "mjd": 59607.2,
        "date_obs": "2022-01-28T05:00:00.000", "object": "M 1", "target": "M_1", "ra": None,
        "dec": None, "airmass": None, "binning": "1x1", "temperature": None, "readout": "",
        "saturate": 60000, "linear": None, "near_infrared": False, "poserr": 0.1,
        "calibrations": {},
    } | changes  # fmt: skip
    values["amplifiers"] = [
        Amplifier(**one) if isinstance(one, dict) else one for one in values.get("amplifiers", ())
    ]
    return FrameFacts(**values)
