"""lib.stack.record: the quality file of a stack."""

import json

import numpy as np
import pytest
from astropy.io import fits

from lib.core.settings import StackSettings
from lib.photometry.zeropoint import SpatialTerm, Zeropoint
from lib.stack.record import CoaddRecord, StackRecord, plain, record_json
from lib.stack.reference import StackReference
from lib.stack.stackframe import StackFrame


def make_record(tmp_path, coadd=None, **settings):
    frames = [StackFrame(f"2022010{k}T000000C0o", tmp_path, fits.Header()) for k in range(3)]
    frames[2].used = False
    reference = StackReference(None, "NONE", None, "NONE", "refcat=none")
    status = "OK" if coadd else "REJECTED"
    return StackRecord(StackSettings(**settings), 13, "r", reference, frames, status, "why", coadd)


def test_values_fit_for_json():
    value = {1: (np.float32(0.5), np.nan, np.inf), "b": np.array([1, 2]), "c": np.bool_(True)}
    assert plain(value) == {"1": [0.5, None, None], "b": [1, 2], "c": True}
    assert json.loads(json.dumps(plain(value))) == plain(value)


def test_rejected_stack_has_no_coadd(tmp_path):
    numbers = record_json(make_record(tmp_path))
    assert (numbers["status"], numbers["reason"]) == ("REJECTED", "why")
    assert (numbers["nframes"], numbers["nstack"], numbers["nreject"]) == (3, 2, 1)
    assert numbers["flags"] == [] and numbers["reference_reason"] == "refcat=none"
    assert "limmag" not in numbers and len(numbers["frames"]) == 3


@pytest.mark.parametrize("combine", ["median", "weighted"])
def test_numbers_of_a_coadd(tmp_path, combine):
    header = fits.Header({"EXPTIME": 60.0, "ABSZPCAT": "truth", "LIMMAG": 22.5, "SEEPIX": 3.5})
    plane = SpatialTerm(1e-5, 0.0, 1e-6, 1e-6, 200.0, 200.0, 1e-4)
    coadd = CoaddRecord(
        header, ["FEW_FRAMES"], 2.5, np.inf, (400, 500), 0.4, 77, 1.1, 0.9, np.array([1.4]),
        np.array([1.0]), 600, Zeropoint(value=25.0, error=0.01, n_stars=20, spatial=plane),
    )  # fmt: skip
    numbers = record_json(make_record(tmp_path, coadd, combine=combine))
    assert numbers["size"] == [500, 400] and numbers["saturate"] is None
    assert numbers["limmag"] == 22.5 and numbers["astrms"] == [None, None]
    assert numbers["zeropoint"]["value"] == 25.0 and numbers["zeropoint"]["scatter"] is None
    assert numbers["zeropoint"]["catalogue"] == "truth"
    assert numbers["zeropoint"]["spatial"]["dx"] == 1e-5
    # The median of two is their mean.
    assert numbers.get("median_penalty") == (1.0 if combine == "median" else None)
    json.dumps(numbers)
