# Takes: the configuration and the raw headers. Gives: the nights, names and input functions.

import sys
from pathlib import Path

# Directory of this workflow, also if another uses it as a module.
HOME = Path(workflow.snakefile).resolve().parents[1]
sys.path.insert(0, f"{HOME}/scripts")

from lib.engine.interrupts import end_in_order

end_in_order()

from lib.engine.install import available_cores, install, keep_records

# First, so that the warm worker loads packages while the rest is read.
TERMINAL = install(workflow, HOME / "scripts")


configfile: f"{HOME}/config/config.yaml"


from lib.core.pipeline import PIPELINE
from lib.engine.config import ConfigError, check_config
from lib.night.instrumentfile import InstrumentError, list_instruments
from lib.night.campaign import plan_campaign
from lib.night.nightlog import NightLog
from lib.night.slices import MARK
from lib.night.targets import TargetError
from lib.engine.campaignfiles import campaign_files
from lib.engine.commandline import describes_rules
from lib.engine.intact import check_products
from lib.engine.nightfiles import read_campaign
from lib.engine.paths import check_places, refuse, work_as_remote_job
from lib.engine.tables import check_tables

try:
    config.update(check_config(config, list_instruments()))
    config.update(check_places(config))
    if describes_rules(sys.argv):
        # They do not depend on the night: none is read, and nothing is written.
        CAMPAIGN = plan_campaign(NightLog({}), config, config["imdir"])
    else:
        if workflow.is_main_process:
            check_tables(config)
        CAMPAIGN = read_campaign(config, write=workflow.is_main_process, argv=sys.argv)
except (ConfigError, InstrumentError, TargetError, OSError) as error:
    refuse(error)


if workflow.remote_exec:
    work_as_remote_job(workflow)

IMDIR = config["imdir"]
FILES = campaign_files(CAMPAIGN, config)
# Folder of a night, if there are several.
NIGHT = CAMPAIGN.wildcard


keep_records(IMDIR)
AGAIN = []
if workflow.is_main_process and not describes_rules(sys.argv):
    AGAIN = check_products(CAMPAIGN, config, sys.argv)


wildcard_constraints:
    night=CAMPAIGN.folder_pattern,
    frame=r"2[0-9A-Za-z_+-]*",
    key=r"[A-Za-z0-9_+-]+",
    stack=rf"[A-Za-z0-9_+-]+\.[A-Za-z0-9_+-]+(?:\.{MARK})?",
    target=r"[A-Za-z0-9_+-]+",


def intermediate(path):
    """Mark a file to be deleted once no step needs it, where `rmifiles` asks for that."""
    return temp(path) if config["rmifiles"] else path
