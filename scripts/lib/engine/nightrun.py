"""A run on one night or several: what precedes its first job and follows its last."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.core.contents import ContentRecord
from lib.night.campaign import Campaign, Night
from lib.report.run import finish_run, record_run
from lib.report.summary import summary, summary_over_nights
from lib.report.trends import write_trends

from .config import ConfigError
from .diskspace import check_room, in_bytes, room_needed
from .durations import read_durations, write_durations
from .install import Terminal
from .intact import Products, products_by_folder
from .interrupts import ignore_at_the_end
from .nightlinks import link_nights
from .ondisk import DiskWriter
from .paths import Claim, refuse, sweep
from .survivors import make_tables_of_survivors


class NightRun:
    """A run on one night or several.

    Parameters
    ----------
    campaign : lib.night.campaign.Campaign
        All nights of the run.
    config : dict
        Checked by `lib.engine.config.check_config`.
    home : Path
        Directory of the workflow.
    terminal : lib.engine.install.Terminal
        Terminal output of the run.
    """

    def __init__(
        self, campaign: Campaign, config: Mapping[str, Any], home: Path, terminal: Terminal
    ) -> None:
        self.campaign = campaign
        self.config = config
        self.home = home
        self.terminal = terminal
        self._claim = Claim(config["imdir"])
        self._disk = DiskWriter(config["imdir"])

    def _places(self) -> list[tuple[Night, Path]]:
        """Return each open night, and the directory of its products."""
        top = Path(self.config["imdir"])
        return [(night, top / folder) for folder, night in self.campaign.open.items()]

    def begin(self, cores: int | None) -> None:
        """Claim `imdir`, remove the remains of a killed run, and record the run.

        Where another run has claimed `imdir`, or the disk is too small, the process ends with one
        sentence.
        """
        imdir, cores = self.config["imdir"], cores or 1
        needed = sum(
            room_needed(night.log, night.plan, {**self.config, "imdir": str(place)}, cores)
            for night, place in self._places()
        )
        try:
            self._claim.take()
            free = check_room(needed, imdir)
        except ConfigError as error:
            refuse(error)
        for place in dict.fromkeys([Path(imdir), *(place for _, place in self._places())]):
            sweep(place)
            ContentRecord(place).compact()
            record_run(place, dict(self.config), cores, sys.argv, os.getcwd())
        self._disk.start()
        room = f"{in_bytes(needed)} to write, {in_bytes(free)} free" if needed else ""
        self.terminal.begin(self.config["quiet"], read_durations(imdir), cores, room)

    def end(self, failed: bool = False, logs: Sequence[str] = ()) -> None:
        """Bring frames.ecsv and the page up to date, and print the summary.

        Parameters
        ----------
        failed : bool
            Whether a job failed: tables are then made from the stacks that exist.
        logs : list of path-like
            Snakemake's logs.
        """
        self.terminal.end()
        imdir = self.config["imdir"]
        write_durations(imdir, self.terminal.durations())
        said, results = [], {}
        for night, place in self._places():
            if self.campaign.several and not (place / "logs").is_dir():
                continue  # no job has begun: of a night of a later part there is nothing to show
            # Repeated, because jobs of a killed run may have died after this one began.
            sweep(place)
            partial = []
            if failed:
                own = {**self.config, "imdir": str(place)}
                partial = make_tables_of_survivors(night, own, self.home, logs)
            result, page_is_current = finish_run(night.log, night.plan, place)
            if not page_is_current:
                script = self.home / "scripts" / "night.py"
                subprocess.run([sys.executable, str(script), "--imdir", place], check=False)
            said += [summary(result, place), *partial]
            results[night.folder] = result
        unlinked = link_nights(self.campaign, self.config)
        if self.campaign.several:
            # Imported here: it needs scipy and tables, which no run on one night does.
            from lib.report.campaignpage import make_campaign_page

            rows = write_trends(self.campaign, results, imdir)
            page = make_campaign_page(self.campaign, rows, imdir)
        said += filter(None, [summary_over_nights(self.campaign, imdir)])
        if self.campaign.several:
            said.append(f"All about the nights: {page}")
        if unlinked:
            said.append(unlinked)
        self._disk.finish()
        for folder, (lasting, intermediate) in products_by_folder(self.campaign).items():
            Products(Path(imdir) / folder, [*lasting, *intermediate]).settle()
        if not self.config["quiet"]:
            for lines in said:
                self.terminal.say(lines)
        ignore_at_the_end()
