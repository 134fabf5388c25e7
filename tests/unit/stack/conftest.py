"""A night of known truth, stacked in each way."""

import numpy as np
import pytest
from astropy.io import fits
from stackruns import run
from starfields import (
    make_stars,
    write_night,
    write_reference,
)


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """Five equal frames of 90 stars and their reference."""
    folder = tmp_path_factory.mktemp("night")
    rng = np.random.default_rng(5)
    stars = make_stars(rng)
    paths = write_night(folder, rng, stars)
    reference = write_reference(folder / "reference.ecsv", rng, stars)
    return folder, stars, paths, reference


@pytest.fixture(scope="module")
def coadds(night):
    """The night stacked in each way: products, header and numbers."""
    folder, _, paths, reference = night
    found = {}
    for combine in ("median", "weighted", "clipped"):
        where = folder / combine
        where.mkdir()
        out, qa = run(where, paths, refcat=reference, settings={"combine": combine})
        found[combine] = (out, fits.getheader(out["coadd"]), qa)
    return found
