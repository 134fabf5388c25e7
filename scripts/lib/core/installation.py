"""Location of this workflow."""

import sys
from pathlib import Path


def installation() -> Path:
    """Return the folder that holds config/ and scripts/.

    Where Snakemake runs a job in a container, each folder of its search path is mounted by
    itself: there it is the one of them that has config/instruments.
    """
    own = Path(__file__).resolve().parents[3]
    places = [own, *(Path(one) for one in sys.path if one.startswith("/"))]
    return next((one for one in places if (one / "config/instruments").is_dir()), own)
