# Takes: the configuration and the raw headers. Gives: the night log, names and input functions.

import atexit
import sys
from pathlib import Path

# Where this workflow lies, also where another uses it as a module.
HOME = Path(workflow.snakefile).resolve().parents[1]
sys.path.insert(0, f"{HOME}/scripts")

from lib.engine.interrupts import end_in_order

end_in_order()

from lib.engine.install import available_cores, install, keep_records

# First of all: the warm worker gets ready while the rest is read.
TERMINAL = install(workflow, HOME / "scripts")


configfile: f"{HOME}/config/config.yaml"


from lib.core.files import sweep_scratch
from lib.core.pipeline import PIPELINE
from lib.engine.config import ConfigError, check_config
from lib.night.instrumentfile import InstrumentError, list_instruments
from lib.night.nightlog import NightLog
from lib.night.plan import plan_night
from lib.engine.commandline import describes_rules
from lib.engine.intact import check_products
from lib.engine.nightfiles import NightFiles, read_night
from lib.engine.paths import check_places, refuse
from lib.engine.tables import check_tables

try:
    config.update(check_config(config, list_instruments()))
    config.update(check_places(config))
    if describes_rules(sys.argv):
        # They are the same with every night: none is read, and nothing is written.
        NIGHT = NightLog({})
    else:
        if workflow.is_main_process:
            check_tables(config)
        NIGHT = read_night(config, write=workflow.is_main_process)
    PLAN = plan_night(NIGHT, config)
except (ConfigError, InstrumentError, OSError) as error:
    refuse(error)


if workflow.remote_exec:
    # A job of a cluster does the work itself: else each of its frames would be handed on to a
    # whole Snakemake of its own.
    workflow.localrules(*PIPELINE.local_rules)
    # What killed jobs have left on this node: the run that began them sees only its own.
    sweep_scratch()
    atexit.register(sweep_scratch)

IMDIR = config["imdir"]
FILES = NightFiles(NIGHT, PLAN, config)


keep_records(IMDIR)
AGAIN = []
if workflow.is_main_process and not describes_rules(sys.argv):
    AGAIN = check_products(NIGHT, PLAN, config, sys.argv)


wildcard_constraints:
    frame=r"2[0-9A-Za-z_+-]*",
    key=r"[A-Za-z0-9_+-]+",
    stack=r"[A-Za-z0-9_+-]+\.[A-Za-z0-9_+-]+",
    target=r"[A-Za-z0-9_+-]+",


def intermediate(path):
    """Mark a file to be deleted once no step needs it, where `rmifiles` asks for that."""
    return temp(path) if config["rmifiles"] else path
