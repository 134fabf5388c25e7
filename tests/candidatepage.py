"""A page with many candidates, without a night: for the test of the page and its cost."""

import numpy as np

from lib.difference.candidatetable import COLUMNS, described, empty_table
from lib.difference.cutouts import SIDE, triple, write_sheet
from lib.difference.ranking import FEATURES
from lib.report.differenceview import show_changes
from lib.report.outcomes import StackOutcome
from lib.report.page import Page, Run, render
from lib.report.targetview import TargetView

TEXTS = {"FILTER": "r", "STACK": "T.r", "KNOWN": ""}


def candidate_table(number):
    """Return a table of so many candidates, each with a cut-out."""
    rng = np.random.default_rng(1)
    table = empty_table()
    for k in range(number):
        row = {name: rng.uniform(1, 20) for name in (*COLUMNS, *(f"Q_{f.name}" for f in FEATURES))}
        row |= TEXTS | {"NUMBER": k + 1, "OBJECT": k + 1, "CUTOUT": k, "SIGN": -1 if k % 5 else 1}
        row |= {"HOST": k % 3, "NFRAMES": 5, "NSEEN": 4, "MOVING": k % 7 == 0, "SCORE": 0.9}
        table.add_row([row[name] for name in table.colnames])
    table = described(table)
    table.meta |= {"counted": number, "threshold": 5.0, "least_score": 0.3}
    return table


def write_candidates(folder, number):
    """Write table and cut-outs of a target T below a folder."""
    candidate_table(number).write(folder / "T.candidates.ecsv", format="ascii.ecsv")
    images = np.random.default_rng(2).normal(0, 1, (3, 2 * SIDE, 2 * SIDE)).astype(np.float32)
    images[0, SIDE - 2 : SIDE + 3, SIDE - 2 : SIDE + 3] += 20
    (folder / "qa/candidates").mkdir(parents=True)
    rows = [triple(images, (1.0, 1.0, 1.0), SIDE, SIDE)] * number
    write_sheet(folder / "qa/candidates/T.jpg", rows)


def page_of(folder, number, frames=None, parts=None):
    """Return the HTML of a page about target T, with `number` candidates or without a template.

    `frames` are cards of difference images of frames by their names, `parts` those of parts of the
    night by their stacks.
    """
    cards = {"QCSTAT": "OK", "FILTER": "r", "ZPSYS": "AB", "DIFTMPL": "ps1 r", "DIFMETH": "sfft",
             "DIFCONV": "template", "DIFLIM3": 23.1, "DIFLIM5": 22.6, "TGTLIM3": 22.9,
             "TGTLIM5": 22.3, "TGTSNR": 1.2, "DIFRESID": 0.004, "DIFPULL": 1.01}  # fmt: skip
    stacks = {"T.r": StackOutcome({}, [], {}, {}, cards if number else {}, frames or {})}
    changes = show_changes("T", stacks, parts or {}, folder)
    target = TargetView("T", None, None, [], [], None, [], "", changes=changes)
    nothing = dict.fromkeys(("stacks", "links", "left", "mismatches", "masters", "remarks",
                             "durations"), [])  # fmt: skip
    counts = dict.fromkeys(("nfiles", "nscience", "nused", "nbad"), 0)
    texts = dict.fromkeys(("begin", "end", "campaign", "imdir", "datadir", "now", "config"), "")
    return render(Page(
        title="test", composites={}, targets=[target], elapsed=1.0, run=Run(), versions={}, data={},
        cards={}, **nothing, **counts, **texts,
    ))  # fmt: skip
