"""The tutorial and the notebook do what they say, word by word, on the frames they are about."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from astropy.table import Table

ROOT = Path(__file__).resolve().parents[2]


def blocks():
    """Return the kind and the text of each block of commands of the tutorial."""
    text = (ROOT / "docs/tutorial.md").read_text()
    return re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def done(real_data, passing_folder):
    """The folder in which the tutorial was followed."""
    with passing_folder("tutorial") as folder:
        path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
        env = {**os.environ, "RAW": str(real_data("cafos_ngc2420_BV")), "PATH": path}
        names = {}
        before = Path.cwd()
        os.chdir(folder)
        try:
            for kind, text in blocks():
                if kind == "sh":
                    subprocess.run(["bash", "-ec", text], env=env, check=True)
                else:
                    exec(text, names)
        finally:
            os.chdir(before)
        yield folder


def test_tutorial_ends_in_light_curves(done):
    curve = Table.read(done / "imredux/NCG2420_V.lightcurves.ecsv")
    frames = curve[curve["KIND"] == "frame"]
    assert set(frames["NAME"]) == {"one", "two", "three"}
    assert len(frames) == 15 and frames["DETECTED"].all()
    for name in ("one", "two", "three"):
        magnitudes = frames["MAG"][frames["NAME"] == name]
        # No star of this choice is known to vary; the shortest exposures have 0.03 mag of noise.
        assert magnitudes.max() - magnitudes.min() < 0.15


def test_notebook_runs(done, monkeypatch, capsys):
    monkeypatch.chdir(done)
    names = {}
    for cell in json.loads((ROOT / "docs/products.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    said = capsys.readouterr().out
    (offset,) = re.findall(r"by hand - MAG_POINT: ([+-][\d.]+) mag", said)
    # 3 FWHM hold all but some per cent of the light, and the light of neighbours.
    assert abs(float(offset)) < 0.05
