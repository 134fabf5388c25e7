"""The rooms of scripts/lib: imports go one way, downwards, no module stands outside a room, and
the tests mirror them."""

import ast
import graphlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

UNIT = Path(__file__).resolve().parent
LIB = UNIT.parents[1] / "scripts/lib"

ROOMS = """
    core frame reference night calibration background photometry astrometry stack difference report
    engine
""".split()
"""From the bottom: each may import from those before it."""

OTHER_TESTS = {"command": "src/autoproc", "tools": "tools", "simulator": "tests/simulate.py"}
"""What is tested outside the rooms: folder of the tests, and what they test."""


def imported_rooms(path):
    """Return (line, room) of each import of `lib`, those inside of functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lib":
            names = [node.module] if "." in node.module else [f"lib.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("lib.")]
        found += [(node.lineno, name.split(".")[1]) for name in names]
    return found


def test_every_module_is_in_a_room():
    assert {path.name for path in LIB.iterdir() if path.is_dir() and path.name[0] != "_"} == set(
        ROOMS
    )
    assert {path.name for path in LIB.glob("*.py")} == {"__init__.py"}
    for room in ROOMS:
        head = ast.get_docstring(ast.parse((LIB / room / "__init__.py").read_text()))
        assert "Takes" in head and "gives" in head


def public_functions(tree):
    """Yield the public functions of a module, and those of its public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name[0] != "_":
            yield node
        elif isinstance(node, ast.ClassDef) and node.name[0] != "_":
            yield from (
                one
                for one in node.body
                if isinstance(one, ast.FunctionDef)
                and (one.name[0] != "_" or one.name == "__init__")
            )


def test_public_functions_are_annotated():
    bare = []
    for path in [*LIB.rglob("*.py"), *LIB.parent.glob("*.py")]:
        for function in public_functions(ast.parse(path.read_text())):
            every = function.args
            named = [*every.posonlyargs, *every.args, *every.kwonlyargs]
            named = [one for one in named if one.arg not in ("self", "cls")]
            if function.returns is None or any(one.annotation is None for one in named):
                bare.append(f"{path.relative_to(LIB.parent)}:{function.lineno} {function.name}")
    assert not bare, "\n".join(bare)


def test_scripts_of_rules_are_wiring():
    for path in LIB.parent.glob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 120, path.name
        assert 'if "snakemake" in globals():\n    run_rule(snakemake, main)\n' in text, path.name


def test_imports_go_downwards():
    wrong = []
    for path in LIB.rglob("*.py"):
        room = path.relative_to(LIB).parts[0]
        if room not in ROOMS:
            continue
        for line, other in imported_rooms(path):
            if ROOMS.index(other) > ROOMS.index(room):
                wrong.append(f"{path.relative_to(LIB)}:{line} imports from {other}")
    assert not wrong, "\n".join(wrong)


def imported_modules(path):
    """Return the modules of `lib` that one imports, as paths, inside of functions and for types
    too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lib."):
            name = node.module.removeprefix("lib.").replace(".", "/")
            for one in (f"{name}.py", *(f"{name}/{alias.name}.py" for alias in node.names)):
                if (LIB / one).exists():
                    yield LIB / one


def test_no_modules_import_each_other():
    """Whoever reads one can read what it needs first."""
    needs = {path: set(imported_modules(path)) for path in LIB.rglob("*.py")}
    graphlib.TopologicalSorter(needs).prepare()


def test_tests_mirror_the_rooms():
    assert {path.name for path in UNIT.glob("*.py")} == {Path(__file__).name}
    folders = {path.name for path in UNIT.iterdir() if path.is_dir() and path.name[0] != "_"}
    assert folders == {*ROOMS, *OTHER_TESTS}
    assert all((UNIT.parents[1] / path).exists() for path in OTHER_TESTS.values())
    rooms_with = {}
    for path in LIB.glob("*/*.py"):
        rooms_with.setdefault(path.stem, set()).add(path.parent.name)
    wrong = []
    for path in UNIT.glob("*/test_*.py"):
        folder, module = path.parent.name, path.stem.removeprefix("test_")
        if folder in OTHER_TESTS:
            continue
        if folder not in rooms_with.get(module, {folder}):
            wrong.append(f"{folder}/{path.name} belongs in {sorted(rooms_with[module])}")
        text = path.read_text()
        # a helper beside the test may import what is tested
        read = [path, *(one for one in path.parent.glob("*.py") if one.stem in text)]
        if not any(room == folder for one in read for _, room in imported_rooms(one)):
            wrong.append(f"{folder}/{path.name} imports nothing from {folder}")
    assert not wrong, "\n".join(wrong)


def test_modules_of_tests_have_names_of_their_own():
    """pytest imports them by these names."""
    names = Counter(path.name for path in UNIT.parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def imported_with(names):
    """Return the modules in memory after an import."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {names}\nprint(*sys.modules)"], cwd=LIB.parent,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stdout.split())


def test_planning_does_not_wait_for_what_jobs_need():
    """Imports of a second: every start would pay for them, a dry run too."""
    found = imported_with("lib.engine.install, lib.engine.nightrun, lib.engine.campaignfiles")
    heavy = {"scipy", "numba", "matplotlib", "astropy.table", "astropy.wcs", "sep", "photutils"}
    assert heavy & found == set()


def test_steps_of_single_frames_do_not_wait_for_what_others_need():
    """In an interpreter of its own, as on a cluster, imports take longer than a frame."""
    heavy = {"numba", "matplotlib", "photutils", "astroscrappy", "scipy.stats"}
    assert imported_with("prepare, flatten") & heavy == set()
    assert imported_with("skysub, crclean") & (heavy | {"ccdproc", "astropy.wcs"}) == set()
