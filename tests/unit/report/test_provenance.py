"""How the products were made."""

import json

from lib.report import provenance


def test_durations_count_a_job_of_many_outputs_once(tmp_path):
    for name, rule, begin, end in (
        ("a", "stack", 100.0, 129.9), ("b", "stack", 100.1, 130.0), ("c", "bias", 90.0, 92.0),
    ):  # fmt: skip
        record = {"rule": rule, "starttime": begin, "endtime": end, "log": [f"im/logs/{rule}.log"]}
        (tmp_path / name).write_text(json.dumps(record))
    (tmp_path / "d").write_text("[1, 2")
    found = provenance.rule_durations(tmp_path)
    assert [(one.rule, one.jobs, one.total) for one in found] == [
        ("stack", 1, 30.0), ("bias", 1, 2.0),
    ]  # fmt: skip
