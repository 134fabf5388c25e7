"""Plots of light curves: what their axes say."""

import numpy as np
import pytest
from astropy.table import Table

from lib.core.figures import new_figure
from lib.photometry.lightcurveplot import draw_light_curve


@pytest.mark.parametrize(
    ("filters", "systems", "label"),
    [
        ("ri", ["AB", "AB"], "magnitude (AB)"),
        ("rJH", ["AB", "Vega", "Vega"], "magnitude (AB: r; Vega: J, H)"),
        ("rJ", ["AB", ""], "magnitude (AB)"),
        ("rK", ["AB", "Vega"], "magnitude (AB)"),  # K has no measurement
    ],
)
def test_axis_of_magnitudes_names_their_system(filters, systems, label):
    n = len(filters)
    table = Table({
        "FILTER": list(filters), "KIND": ["frame"] * n, "MJD": [59607.0 + k for k in range(n)],
        "MAG": [np.nan if one == "K" else 18.0 for one in filters], "MAGERR": [0.1] * n,
        "LIMIT": [np.nan] * n, "ZPSYS": systems,
    })  # fmt: skip
    _, axes = new_figure((4, 3), (0.1, 0.1, 0.9, 0.9))
    assert draw_light_curve(axes[0, 0], table)
    assert axes[0, 0].get_ylabel() == label and axes[0, 0].yaxis_inverted()
