"""Products that the tests of this room share."""

import pytest
from epochpair import make_epochs


@pytest.fixture(scope="session")
def epochs(tmp_path_factory):
    """The earlier and the later stack of a field."""
    return make_epochs(tmp_path_factory.mktemp("epochs"))
