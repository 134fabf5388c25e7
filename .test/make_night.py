"""Simulate the night of the tests: raw/ and reference.ecsv, 12 MB in two seconds.

usage: python .test/make_night.py [FOLDER]      this one, if not given
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

import simulate  # noqa: E402

NIGHT = {
    "instrument": "lmi", "size": 512, "exposures": 3, "stars": 40, "calibrations": 3, "seed": 7,
    "detector_truth": False, "faint_limit": 21.0,
}  # fmt: skip
"""An LMI night of 512 x 512 pixels: two filters, three exposures each, biases and flats.

No stars fainter than r = 21: the field is no crowd.
"""


def main(folder: Path = HERE) -> None:
    """Write the night into a folder.

    Parameters
    ----------
    folder : Path
    """
    simulate.simulate_night(folder, simulate.Night(**NIGHT))
    print(f"{len(list((folder / 'raw').iterdir()))} raw frames in {folder / 'raw'}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
