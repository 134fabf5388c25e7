"""The pipeline: its steps, the rules of each, and what each rule writes; declared once.

The Snakefile, the command ``autoproc``, the warm worker, the progress display, the report and the
tables of the docs read `PIPELINE`. A new step is a line here, a rule file and a script.

This module imports the standard library only: it is read at every start, and by ``autoproc``
outside of the workflow.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import Any


class Scope(Enum):
    """The unit that one job of a rule works on."""

    MASTER = "master"
    SKY = "sky"
    FRAME = "frame"
    """One exposure of one detector; of a split detector, one half."""
    STACK = "stack"
    """All frames of a target in one filter."""
    TARGET = "target"
    """All stacks of a target."""
    NIGHT = "night"


@dataclass(frozen=True)
class Rule:
    """A rule of the workflow, and the script of the same name.

    Parameters
    ----------
    name : str
    scope : Scope
    prefix : str
        For a rule of frames: the letter that it puts before the name of a frame.
    gives : tuple of str
        Products in imdir, with wildcards in <>; for a rule of frames they follow from `prefix`.
    file : str
        Stem of its file in rules/, where that is not the rule's name.
    network : bool
        It asks servers: it runs where Snakemake runs, and what it got is not asked for again.
    """

    name: str
    scope: Scope
    prefix: str = ""
    gives: tuple[str, ...] = ()
    file: str = ""
    network: bool = False

    @property
    def rule_file(self) -> str:
        """Stem of the file in rules/ that holds the rule."""
        return self.file or self.name

    @property
    def of_whole_stacks(self) -> bool:
        """Whether its script works on stacks, and imports what those need."""
        return self.scope in (Scope.STACK, Scope.TARGET, Scope.NIGHT) and not self.network


@dataclass(frozen=True)
class Step:
    """A step, as ``autoproc`` and ``--until`` know it.

    Parameters
    ----------
    name : str
        Also the name of its last or main rule.
    does : str
        For the tables of the documentation.
    rules : tuple of Rule
        Rules in the order in which they run.
    left_out_by : str
        Key of the configuration that leaves the step out.
    wanted_by : str
        Key of the configuration without which the step is left out.
    """

    name: str
    does: str
    rules: tuple[Rule, ...]
    left_out_by: str = ""
    wanted_by: str = ""

    @property
    def main(self) -> Rule:
        """The rule of the step's name."""
        return next(rule for rule in self.rules if rule.name == self.name)


@dataclass(frozen=True)
class Pipeline:
    """All steps in their order.

    Parameters
    ----------
    steps : tuple of Step
    closing : tuple of Rule
        Rules that belong to no step and come last.
    collecting : tuple of str
        Rules without a script, which only name files to be made.
    """

    steps: tuple[Step, ...]
    closing: tuple[Rule, ...] = ()
    collecting: tuple[str, ...] = ("all", "targets", "nights")

    @property
    def step_names(self) -> tuple[str, ...]:
        """Names of the steps."""
        return tuple(step.name for step in self.steps)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All rules that have a script, in the order in which they run."""
        return tuple(rule for step in self.steps for rule in step.rules) + self.closing

    @property
    def rule_files(self) -> tuple[str, ...]:
        """Stems of the files in rules/, in the order in which they are to be included."""
        return tuple(dict.fromkeys(rule.rule_file for rule in self.rules))

    def __getitem__(self, name: str) -> Rule:
        """Return the rule of a name."""
        for rule in self.rules:
            if rule.name == name:
                return rule
        raise KeyError(name)

    def names(self, *scopes: Scope) -> tuple[str, ...]:
        """Return the names of the rules of some scopes."""
        return tuple(rule.name for rule in self.rules if rule.scope in scopes)

    # -- prefixes

    @property
    def frame_rules(self) -> tuple[str, ...]:
        """Names of the rules that a science frame takes, in order; each adds a letter to it."""
        return self.names(Scope.FRAME)

    def prefix(self, name: str, left_out: Collection[str] = ()) -> str:
        """Return the prefix of the frames that a rule writes.

        Parameters
        ----------
        name : str
            A rule of frames.
        left_out : collection of str
            Steps that are left out.
        """
        return self[name].prefix + self.prefix_before(name, left_out)

    def prefix_before(self, name: str, left_out: Collection[str] = ()) -> str:
        """Return the prefix of the frames that a rule takes: what the steps before it wrote.

        Parameters
        ----------
        name : str
            Any rule; after the last rule of frames all their letters are there.
        left_out : collection of str
            Steps that are left out.
        """
        letters = ""
        for step in self.steps:
            for rule in step.rules:
                if rule.name == name:
                    return letters
                if step.name not in left_out:
                    letters = rule.prefix + letters
        return letters

    def prefixes(self, name: str) -> tuple[str, ...]:
        """Return all prefixes that a rule of frames may write, the one with all steps first."""
        optional = [
            step.name for step in self.steps if step.left_out_by and name not in _names(step.rules)
        ]
        found = (
            self.prefix(name, {step for step, out in zip(optional, choice, strict=True) if out})
            for choice in product((False, True), repeat=len(optional))
        )
        return tuple(dict.fromkeys(found))

    def frame_chain(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return the rules that a science frame takes, each with the prefixes of what it writes."""
        return tuple((name, self.prefixes(name)) for name in self.frame_rules)

    # -- groups of rules

    @property
    def master_prefixes(self) -> tuple[str, ...]:
        """Beginnings of the names of all master files."""
        return tuple(
            pattern.split("<")[0]
            for rule in self.rules
            if rule.scope in (Scope.MASTER, Scope.SKY)
            for pattern in rule.gives
        )

    @property
    def stack_rules(self) -> tuple[str, ...]:
        """Names of the rules whose scripts work on whole stacks."""
        return tuple(rule.name for rule in self.rules if rule.of_whole_stacks)

    @property
    def before_stacks(self) -> tuple[str, ...]:
        """Names of the last two rules of frames before the first rule of whole stacks.

        Two, because the last may be left out.
        """
        names = []
        for rule in self.rules:
            if rule.of_whole_stacks:
                break
            if rule.scope is Scope.FRAME:
                names.append(rule.name)
        return tuple(names[-2:])

    @property
    def local_rules(self) -> tuple[str, ...]:
        """Names of the rules whose jobs leave nothing open, and go on in one process."""
        return tuple(rule.name for rule in self.rules if not rule.network)

    def left_out(self, config: Mapping[str, Any]) -> frozenset[str]:
        """Return the names of the steps that a configuration leaves out."""
        return frozenset(
            step.name
            for step in self.steps
            if (step.left_out_by and config.get(step.left_out_by))
            or (step.wanted_by and not config.get(step.wanted_by))
        )

    def is_last(self, step: str, left_out: Collection[str]) -> bool:
        """Return whether no step is done after one.

        Parameters
        ----------
        step : str
        left_out : collection of str
            Steps that are left out.
        """
        names = self.step_names
        return all(one in left_out for one in names[names.index(step) + 1 :])

    # -- documentation

    def products(self, step: Step) -> tuple[str, ...]:
        """Return the names of the files that the main rule of a step and those after it write."""
        main = step.main
        if main.scope is Scope.FRAME:
            return (f"{self.prefix(main.name)}<frame>.fits",)
        rules = step.rules[step.rules.index(main) :]
        return tuple(pattern for rule in rules for pattern in rule.gives)

    def table(self) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
        """Give for each step its name, the prefix of what it takes, its products, what it does."""
        stacks = ""
        for step in self.steps:
            takes = stacks or self.prefix_before(step.name)
            yield step.name, takes, self.products(step), step.does
            if step.main.scope is Scope.STACK and not stacks:
                stacks = self.products(step)[0].split("<")[0]


def _names(rules: tuple[Rule, ...]) -> tuple[str, ...]:
    return tuple(rule.name for rule in rules)


PIPELINE = Pipeline(
    steps=(
        Step(
            "prepare",
            "overscan, bias, dark, electrons; saturated and bad pixels in the mask",
            (
                Rule("bias", Scope.MASTER, gives=("bias-<key>.fits",), file="masters"),
                Rule("dark", Scope.MASTER, gives=("dark-<key>.fits",), file="masters"),
                Rule("prepare", Scope.FRAME, prefix="p"),
            ),
        ),
        Step(
            "flatten",
            "divided by the flat, sources marked, sky measured",
            (
                Rule("flat", Scope.MASTER, gives=("flat_<filter>.fits",), file="masters"),
                Rule("flatten", Scope.FRAME, prefix="f"),
            ),
        ),
        Step(
            "makesky",
            "the empty sky",
            (Rule("makesky", Scope.SKY, gives=("sky-<filter>.fits",), file="sky"),),
            left_out_by="nomastersky",
        ),
        Step(
            "skysub",
            "sky subtracted",
            (Rule("skysub", Scope.FRAME, prefix="s", file="sky"),),
        ),
        Step(
            "crclean",
            "cosmic rays flagged and repaired",
            (Rule("crclean", Scope.FRAME, prefix="z"),),
            left_out_by="nocrclean",
        ),
        Step(
            "astrometry",
            "positions: source-extractor, SCAMP, all frames of a stack together",
            (
                Rule(
                    "refcat",
                    Scope.TARGET,
                    gives=("refcat/<object>.ecsv",),
                    file="astrometry",
                    network=True,
                ),
                Rule(
                    "solve",
                    Scope.STACK,
                    gives=("qa/astrometry/<object>.<filter>.json",),
                    file="astrometry",
                ),
                Rule("astrometry", Scope.FRAME, prefix="a"),
            ),
        ),
        Step(
            "stack",
            "resampling, outliers, zero point, depth, source tables, light curve of the target",
            (
                Rule(
                    "stack",
                    Scope.STACK,
                    gives=(
                        "coadd<object>.<filter>.fits",
                        "coadd<object>.<filter>.weight.fits",
                        "coadd<object>.<filter>.cat.fits",
                    ),
                ),
                Rule("tables", Scope.TARGET, gives=("<object>.ecsv",), file="stack"),
                Rule("lightcurve", Scope.TARGET, gives=("<object>.lightcurve.ecsv",), file="stack"),
                Rule("export", Scope.TARGET),
            ),
        ),
        Step(
            "subtract",
            "the template subtracted from each coadd; what has changed, ranked",
            (
                Rule(
                    "template",
                    Scope.STACK,
                    gives=("refcat/<object>.<filter>.template.fits",),
                    file="difference",
                    network=True,
                ),
                Rule(
                    "subtract",
                    Scope.STACK,
                    gives=("diff<object>.<filter>.fits", "diff<object>.<filter>.weight.fits"),
                    file="difference",
                ),
                # Its frames, dazsfp<frame>.fits, are made on request.
                Rule("framediff", Scope.STACK, file="difference"),
                Rule(
                    "candidates",
                    Scope.TARGET,
                    gives=("<object>.candidates.ecsv",),
                    file="difference",
                ),
            ),
            wanted_by="template",
        ),
    ),
    closing=(Rule("night", Scope.NIGHT, gives=("night.html",)),),
)
