"""Relations between bands, on the Sun."""

import numpy as np
import pytest

from lib.core.bands import AB_MINUS_VEGA, BANDS
from lib.reference.referencetable import blank_table
from lib.reference.transformations import (
    PS1_TO_REFERENCE,
    TRANSFORMATIONS,
    fill_by_transformation,
    transform,
)

# A star of solar colours in three systems. Sun: Willmer (2018, ApJS 236, 47), table 3.
SUN_AB = {"u": 6.39, "g": 5.11, "r": 4.65, "i": 4.53, "z": 4.50,
          "B": 5.31, "V": 4.80, "R": 4.60, "I": 4.51}  # fmt: skip


SUN_PS1 = {"g": 5.03, "r": 4.64, "i": 4.52, "z": 4.51, "y": 4.50}


def as_arrays(magnitudes, error=0.01):
    values = {band: np.array([magnitudes.get(band, np.nan)]) for band in BANDS}
    return values, {band: np.array([error]) for band in BANDS}


@pytest.mark.parametrize("relation", TRANSFORMATIONS, ids=lambda t: f"{t.band}<{t.base} {t.source}")
def test_relations_reproduce_the_sun(relation):
    values, errors = as_arrays(SUN_AB | {"y": SUN_PS1["y"]})
    result, error = relation.apply(values, errors)
    # the scatter of the relation and 0.05 mag of the Sun's own magnitudes and systems
    assert abs(result[0] - values[relation.band][0]) < 0.05 + 2 * relation.scatter
    assert error[0] >= relation.scatter


def test_panstarrs_relations_reproduce_the_sun():
    values, errors = as_arrays(SUN_PS1)
    result = transform(PS1_TO_REFERENCE, values, errors)
    assert set(result) == set("grizBVRI")
    for band, (value, _) in result.items():
        assert abs(value[0] - SUN_AB[band]) < 0.06, band


def test_error_of_a_relation_is_propagated():
    v_of_g = next(t for t in TRANSFORMATIONS if t.band == "V")
    rng = np.random.default_rng(4)
    n = 20000
    g, r = 16 + rng.normal(0, 0.02, n), 15.4 + rng.normal(0, 0.03, n)
    values, _ = v_of_g.apply({"g": g, "r": r}, {"g": 0.02, "r": 0.03})
    _, error = v_of_g.apply({"g": 16.0, "r": 15.4}, {"g": 0.02, "r": 0.03})
    assert error == pytest.approx(np.hypot(values.std(), v_of_g.scatter), rel=0.03)


def test_relations_stop_at_the_end_of_their_colours():
    values, errors = as_arrays({"g": 17.0, "r": 15.2, "i": 14.0})
    for relation in TRANSFORMATIONS:
        if relation.band in "BV" and relation.base == "g":
            assert np.isnan(relation.apply(values, errors)[0][0])


def test_bands_are_filled_from_measurements_only():
    table = blank_table(1)
    for band in "gri":
        table[band], table[f"{band}_err"] = SUN_AB[band], 0.01
    table["V"], table["V_err"] = 4.9, 0.02
    fill_by_transformation(table)
    assert table["V"][0] == 4.9  # measured: kept
    for band in "BRI":
        assert abs(table[band][0] - SUN_AB[band]) < 0.07
        assert "Lupton" in table[f"{band}_src"][0]
    assert np.isnan(table["z"][0])  # R and I were derived, and derived ones derive nothing
    assert np.isnan(table["u"][0]) and np.isnan(table["K"][0])


def test_vega_offsets_turn_the_suns_magnitudes_to_ab():
    sun_vega = {"B": 5.44, "V": 4.81, "R": 4.43, "I": 4.10}  # Willmer (2018), uncertain by 0.02
    for band, magnitude in sun_vega.items():
        assert magnitude + AB_MINUS_VEGA[band] == pytest.approx(SUN_AB[band], abs=0.02)
