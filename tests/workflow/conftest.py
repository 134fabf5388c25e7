"""A tiny simulated night, reduced once; tests work on copies of it."""

import pytest
from workbench import simulated


@pytest.fixture(scope="session")
def raw_night(tmp_path_factory):
    """An LMI night of 512² pixels, two filters, three exposures each: raw frames only."""
    return simulated(tmp_path_factory.mktemp("raw_night"))


@pytest.fixture(scope="session")
def reduced_night(raw_night, tmp_path_factory):
    """The same, reduced; `said` is what the run said. Not to be changed: copy it."""
    place = raw_night.copy(tmp_path_factory.mktemp("reduced") / "night")
    place.said = place.snakemake()
    assert place.said.code == 0, place.said.out
    return place


@pytest.fixture
def fresh(raw_night, tmp_path):
    """A copy of the raw frames."""
    return raw_night.copy(tmp_path / "night")


@pytest.fixture
def reduced(reduced_night, tmp_path):
    """A copy of the reduced night."""
    return reduced_night.copy(tmp_path / "night")
