"""A bundle of answers for a mountain without network, and the command that makes it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from referencefield import EPOCH, FIELD, online, settings
from vizier_server import VizierServer

from lib.reference.build import make_reference
from lib.reference.field import Field
from lib.reference.freeze import freeze, read_fields

ROOT = Path(__file__).resolve().parents[3]


def test_frozen_bundle_serves_without_network(server, tmp_path):
    fields = tmp_path / "fields.csv"
    fields.write_text("name,ra,dec,radius\nfirst,150.0,2.0,0.2  # a comment\n\n")
    bundle = tmp_path / "bundle"
    assert freeze(read_fields(fields), bundle, settings(server.address)) == []
    listing = json.loads((bundle / "bundle.json").read_text())
    assert {entry["field"] for entry in listing} == {"first"} and len(listing) == 7
    table = make_reference("offline", Field(*FIELD, epoch=EPOCH), bundle)
    assert len(table) > 80 and np.isfinite(table["y"]).all()


def test_bundle_tells_what_it_lacks(tmp_path):
    with VizierServer(faults={"II/246/out": "http500"}) as server:
        missing = freeze([("first", *FIELD)], tmp_path, settings(server.address))
    assert len(missing) == 1 and "first" in missing[0] and "II/246/out" in missing[0]


@pytest.mark.parametrize("line", ["m1 10:00:00 2 0.1", "m1 10", "m1 10 99 0.1", "m1 10 2 50"])
def test_wrong_field_is_named(tmp_path, line):
    (tmp_path / "f.txt").write_text("ok 1 2 0.1\n" + line + "\n")
    with pytest.raises(ValueError, match="line 2"):
        read_fields(tmp_path / "f.txt")


def autoproc_refcat(folder, *words):
    """Run the command as it is installed: in a module of its own, anywhere."""
    source = ROOT / "src"
    return subprocess.run(
        [sys.executable, "-P", "-m", "autoproc.refcat", *map(str, words)],
        capture_output=True, text=True, timeout=60, cwd=folder,
        env=os.environ | {"PYTHONPATH": str(source)},
    )  # fmt: skip


def test_command_freezes_a_bundle(server, tmp_path):
    (tmp_path / "f.txt").write_text("first 150 2 0.2\n")
    done = autoproc_refcat(tmp_path, "--fields", "f.txt", "--out", "b", "--server", server.address)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b" / "bundle.json").is_file()
    table = online(None, tmp_path / "b", value="offline", servers=())
    assert table.meta["source"] == "GaiaDR3" and len(table) > 80


def test_command_tells_what_is_missing(tmp_path):
    (tmp_path / "f.txt").write_text("first 150 2 0.2\n")
    with VizierServer(faults={"II/246/out": "http500"}) as server:
        done = autoproc_refcat(
            tmp_path, "--fields", "f.txt", "--out", "b", "--server", server.address
        )
    assert done.returncode == 1
    assert "II/246/out" in done.stderr and "Traceback" not in done.stderr


def test_command_with_wrong_words(tmp_path):
    wrong = autoproc_refcat(tmp_path, "--fields", "absent", "--out", ".")
    assert wrong.returncode == 2
    assert "absent" in wrong.stderr and "usage: autoproc-refcat" in wrong.stderr
    helped = autoproc_refcat(tmp_path, "--help")
    assert helped.returncode == 0 and "--fields" in helped.stdout
