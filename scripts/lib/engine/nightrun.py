"""A run on a night: what is done before its first job and after its last."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.core.contents import ContentRecord
from lib.night.nightlog import NightLog
from lib.night.plan import Plan
from lib.report.run import finish_run, record_run
from lib.report.summary import summary

from .config import ConfigError
from .diskspace import check_room, in_bytes, room_needed
from .durations import read_durations, write_durations
from .install import Terminal
from .intact import Products, product_names
from .interrupts import ignore_at_the_end
from .ondisk import DiskWriter
from .paths import Claim, refuse, sweep
from .survivors import make_tables_of_survivors


class NightRun:
    """A run on a night.

    Parameters
    ----------
    night : lib.night.nightlog.NightLog
    plan : lib.night.plan.Plan
    config : dict
        Checked by `lib.engine.config.check_config`.
    home : Path
        Where the workflow lies.
    terminal : lib.engine.install.Terminal
    """

    def __init__(
        self,
        night: NightLog,
        plan: Plan,
        config: Mapping[str, Any],
        home: Path,
        terminal: Terminal,
    ) -> None:
        self.night = night
        self.plan = plan
        self.config = config
        self.home = home
        self.terminal = terminal
        self._claim = Claim(config["imdir"])
        self._disk = DiskWriter(config["imdir"])

    def begin(self, cores: int | None) -> None:
        """Claim `imdir`, remove what a killed run left in it, and record the run.

        Where another run has `imdir`, or the disk is too small, the process ends with one
        sentence.
        """
        imdir, cores = self.config["imdir"], cores or 1
        needed = room_needed(self.night, self.plan, self.config, cores)
        try:
            self._claim.take()
            free = check_room(needed, imdir)
        except ConfigError as error:
            refuse(error)
        sweep(imdir)
        ContentRecord(imdir).compact()
        self._disk.start()
        room = f"{in_bytes(needed)} to write, {in_bytes(free)} free" if needed else ""
        self.terminal.begin(self.config["quiet"], read_durations(imdir), cores, room)
        record_run(imdir, dict(self.config), cores, sys.argv, os.getcwd())

    def end(self, failed: bool = False, logs: Sequence[str] = ()) -> None:
        """Bring frames.ecsv and the page up to date, and say how the run ended.

        Parameters
        ----------
        failed : bool
            Whether a job failed: the stacks that are there have tables all the same.
        logs : list of path-like
            Snakemake's logs.
        """
        imdir = self.config["imdir"]
        self.terminal.end()
        write_durations(imdir, self.terminal.durations())
        # Again: jobs of a killed run may have died after this one began.
        sweep(imdir)
        partial = []
        if failed:
            partial = make_tables_of_survivors(self.plan, self.config, self.home, logs)
        result, page_is_current = finish_run(self.night, self.plan, imdir)
        if not page_is_current:
            script = self.home / "scripts" / "night.py"
            subprocess.run([sys.executable, str(script), "--imdir", imdir], check=False)
        self._disk.finish()
        lasting, intermediate = product_names(self.night, self.plan)
        Products(imdir, [*lasting, *intermediate]).settle()
        if not self.config["quiet"]:
            self.terminal.say(summary(result, imdir))
        for line in partial:
            self.terminal.say(line)
        ignore_at_the_end()
