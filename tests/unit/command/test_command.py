"""The arguments of the original autoproc, and what becomes of them."""

import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from autoproc import STEPS, AutoprocError, __version__, autoproc, command, main


@pytest.fixture
def ran(monkeypatch):
    """The command lines that would have been run."""
    lines = []

    def run(words):
        lines.append(words)
        return 0

    monkeypatch.setattr(command, "run", run)
    return lines


def options(words):
    """Return {option: its words} of a command line of Snakemake."""
    found, key = {}, None
    for word in words:
        if word.startswith("--"):
            key = word
            found[key] = []
        elif key:
            found[key].append(word)
    return found


def test_commands_are_installed_as_declared():
    root = Path(__file__).resolve().parents[3]
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    for target in declared.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    (names,) = re.findall(r"for name in (autoproc.*); do", (root / "tools/install.sh").read_text())
    assert set(names.split()) == set(declared)


OLD_STEPS = ("prepare", "flatten", "makesky", "skysub", "crclean", "astrometry", "stack")


def test_steps_are_in_the_order_of_old():
    assert STEPS == (*OLD_STEPS, "subtract")


@pytest.mark.parametrize(
    "arguments, steps",
    [
        ({}, STEPS),
        ({"start": "crclean"}, STEPS[4:]),
        ({"stop": "flatten"}, STEPS[:2]),
        ({"start": "flatten", "stop": "skysub"}, STEPS[1:4]),
        ({"only": "crclean"}, ("crclean",)),
        ({"step": "crclean", "only": "stack"}, ("crclean",)),
        ({"step": "crclean", "start": "prepare"}, ("crclean",)),
    ],
)
def test_steps(arguments, steps):
    assert command.choose_steps(**arguments) == steps


@pytest.mark.parametrize("name", ["start", "stop", "only", "step"])
def test_unknown_step_names_the_steps(name, ran):
    with pytest.raises(AutoprocError, match="stakc.*prepare, flatten, makesky"):
        autoproc(**{name: "stakc"})
    assert ran == []


def test_stop_before_start(ran):
    with pytest.raises(AutoprocError, match="stack") as caught:
        autoproc(start="astrometry", stop="flatten")
    assert "prepare" not in str(caught.value)
    assert ran == []


def test_example_of_the_original(ran):
    autoproc(datadir="./raw/", imdir="./reduced/", redo=1)
    (words,) = ran
    assert words[0] == sys.executable
    found = options(words)
    assert found["--config"] == ['datadir="./raw/"', 'imdir="./reduced/"']
    assert set(OLD_STEPS) <= set(found["--forcerun"])
    assert "subtract" not in found["--forcerun"]
    assert "--until" not in found
    assert "--allowed-rules" not in found


def test_every_rule_of_a_step_exists():
    rules = set(command.all_rules())
    assert {rule.name for step in command.PIPELINE.steps for rule in step.rules} < rules
    assert {"all", "targets", "night"} < rules


def test_no_argument_leaves_the_configuration_alone(ran):
    autoproc()
    assert "--config" not in options(ran[0])


@pytest.mark.parametrize("step", STEPS)
def test_only_a_step(ran, step):
    template = {"template": "own"} if step == "subtract" else {}
    autoproc(only=step, redo=True, **template)
    found = options(ran[0])
    assert found.get("--until", ["subtract" if template else "stack"]) == [step]
    assert step in found["--forcerun"]
    if step != "prepare":
        earlier = STEPS[: STEPS.index(step)]
        assert not set(earlier) & set(found["--allowed-rules"])
        # What comes after is known, or the targets could not be traced back to the step.
        assert set(STEPS[STEPS.index(step) :]) < set(found["--allowed-rules"])


@pytest.mark.parametrize(
    "switch, step, before", [("nocrclean", "crclean", "skysub"),
                             ("nomastersky", "makesky", "flatten")]
)  # fmt: skip
def test_step_that_is_left_out(ran, capsys, switch, step, before):
    autoproc(only=step, **{switch: True})
    assert ran == []
    assert step in capsys.readouterr().err
    autoproc(stop=step, **{switch: True})
    assert options(ran[0])["--until"] == [before]


def test_values_reach_the_configuration_as_they_are(ran):
    import yaml

    name = "a b'c\"d;$(x)é#:"
    autoproc(datadir=name, imdir="2022", customcatfilt=["g", "r"], cores=3, refcat="none")
    found = options(ran[0])
    settings = dict(word.split("=", 1) for word in found["--config"])
    assert yaml.safe_load(settings["datadir"]) == name
    assert yaml.safe_load(settings["imdir"]) == "2022"
    assert json.loads(settings["customcatfilt"]) == ["g", "r"]
    assert yaml.safe_load(settings["refcat"]) == "none"
    assert found["--cores"] == ["3"]


def test_profile_is_that_of_the_installation(ran):
    autoproc()
    found = options(ran[0])
    assert found["--workflow-profile"] == ["none"]
    assert found["--scheduler"] == ["greedy"]
    assert {"--rerun-incomplete", "--keep-going", "--nolock", "--show-failed-logs"} <= set(found)
    assert "--printshellcmds" not in found
    autoproc(options=["--workflow-profile", "mine"])
    autoproc(options=["--workflow-profile=mine"])
    for words in ran[1:]:
        assert sum(word.startswith("--workflow-profile") for word in words) == 1


def test_failed_run_is_told(monkeypatch):
    monkeypatch.setattr(command, "run", lambda words: 1)
    with pytest.raises(AutoprocError, match="exit code 1"):
        autoproc()
    with pytest.raises(AutoprocError, match="'flatten' and before"):
        autoproc(start="makesky")


def test_command_line_is_that_of_the_function(ran):
    assert main(["--datadir", "raw", "--step", "flatten", "--redo", "--customcatfilt", "g", "r",
                 "--config", "refcat=none", "instrument=lmi", "--", "--dry-run"]) == 0  # fmt: skip
    autoproc("raw", step="flatten", redo=1, customcatfilt=["g", "r"], options=["--dry-run"])
    extra = ["refcat=none", "instrument=lmi"]
    assert ran[0] == ran[1] + extra


def test_raw_frames_come_first(ran):
    assert main(["raw", "--out", "mine", "--instrument", "lmi", "--refcat", "none"]) == 0
    assert main(["--datadir=raw", "--imdir=mine", "--instrument=lmi", "--refcat=none"]) == 0
    autoproc("raw", "mine", instrument="lmi", refcat="none")
    assert ran[0] == ran[1]
    assert set(options(ran[0])["--config"]) == set(options(ran[2])["--config"])
    assert main(["one", "two"]) == 0
    assert yaml.safe_load(options(ran[3])["--config"][0].partition("=")[2]) == ["one", "two"]


def test_raw_frames_in_two_ways_are_refused(ran, capsys):
    assert main(["raw", "--datadir", "other"]) == 2
    assert "write one" in capsys.readouterr().err
    assert not ran


@pytest.mark.parametrize(
    "pairs, settings",
    [
        (["stack.combine=weighted"], {"stack": {"combine": "weighted"}}),
        (
            ["stack.memory=2", "flat.low=0.1", "stack.combine=median", "refcat=none"],
            {
                "stack": {"memory": "2", "combine": "median"},
                "flat": {"low": "0.1"},
                "refcat": "none",
            },
        ),
        (["ab.c.d=1e-3", "ab.c.e=[x, 2]"], {"ab": {"c": {"d": "1e-3", "e": ["x", "2"]}}}),
    ],
)
def test_keys_of_sections(ran, pairs, settings):
    from snakemake.cli import parse_config

    assert main(["--config", *pairs]) == 0
    assert parse_config(options(ran[0])["--config"]) == settings


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.strip() == f"autoproc {__version__}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh", "fish"])
def test_completion(ran, capsys, shell):
    assert main(["--print-completion", shell]) == 0
    said = capsys.readouterr().out
    assert "--refcat" in said and "crclean" in said
    assert not ran


def test_completion_by_bash(tmp_path, capsys):
    main(["--print-completion", "bash"])
    (tmp_path / "c").write_text(capsys.readouterr().out)
    ask = "source ./c; COMP_WORDS=(autoproc --stop {}); COMP_CWORD=2; _shtab_autoproc; "
    found = subprocess.run(
        ["bash", "-c", ask.format("cr") + 'echo "${COMPREPLY[@]}"'],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.split() == ["crclean"]


@pytest.mark.parametrize("words", [["--step", "stakc"], ["--config", "nonsense"],
                                   ["--config", "a=1", "a.b=2"], ["--config", "a.b=[1"],
                                   ["--print-completion", "csh"],
                                   ["--stop", "flatten", "--start", "stack"]])  # fmt: skip
def test_wrong_argument_is_one_sentence(ran, capsys, words):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("autoproc: ")
    assert len(said.splitlines()) == 1
    assert ran == []


def test_misspelt_step_is_answered_with_the_nearest(capsys):
    assert main(["--stop", "Astrometri"]) == 2
    assert "did you mean 'astrometry'?" in capsys.readouterr().err


ODD = ["with \"quote", "back\\slash", "ta\tb", "ha #sh", " outer ", "<word>", "étoile ☆",
       "'quoted'", "[brack]", "{a: b}", "5", "1e5", "nan", "True", "a: b", "- a", "null", "*s",
       "&a", "!x", "x\x85y\u2028z", "𝄞\t", "\udcff.fits", "%x", "a,b", '"', "\\"]  # fmt: skip


@pytest.mark.parametrize("text", [*ODD, "raw night", "/data/raw", "imredux", "a=b"])
def test_any_path_reaches_the_workflow_as_it_is(text):
    from snakemake.cli import parse_config

    assert parse_config([f"imdir={command.config_text(text)}"]) == {"imdir": text}


def test_show_runs_nothing(ran, capsys):
    assert main(["--datadir", "a b", "--show"]) == 0
    assert "'datadir=\"a b\"'" in capsys.readouterr().out
    assert ran == []


# ---------------------------------------------------------------------------- pipeautoproc.par


def test_par_file(ran, tmp_path, monkeypatch, capsys):
    (tmp_path / "pipeautoproc.par").write_text(
        "autoastrocommand: /opt/vlt_autoastrometry.py\n"
        "swarpcommand:\n"
        "datadir:   /data/raw night/ \n"
        "imworkingdir: /data/out/\n"
        "rmifiles: 1\noverwrite: 1\nverbose: 0\nprefix: 2\n"
        "not a line\n"
    )
    monkeypatch.chdir(tmp_path)
    autoproc(imdir="mine")
    found = options(ran[0])
    assert 'datadir="/data/raw night/"' in found["--config"]
    assert 'imdir="mine"' in found["--config"]
    assert {"rmifiles=True", "quiet=True"} <= set(found["--config"])
    assert "prepare" in found["--forcerun"]
    said = capsys.readouterr().err.splitlines()
    assert any("datadir" in line and "config/config.yaml" in line for line in said)
    assert any("autoastrocommand is no longer needed" in line for line in said)
    assert not any("swarpcommand" in line or "imworkingdir" in line for line in said)


def test_par_file_that_changes_nothing(ran, tmp_path, monkeypatch, capsys):
    (tmp_path / "pipeautoproc.par").write_text("rmifiles: 0\noverwrite: 0\nverbose: 1\n")
    monkeypatch.chdir(tmp_path)
    autoproc()
    assert "--config" not in options(ran[0])
    assert "--forcerun" not in options(ran[0])
    assert capsys.readouterr().err == ""


def test_run_gives_the_exit_code():
    assert command.run([sys.executable, "-c", "raise SystemExit(7)"]) == 7
