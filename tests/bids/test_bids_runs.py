from __future__ import annotations

import json

from msnmo_bids.bids.runs import (
    FAILED,
    OK,
    SKIPPED,
    RunRecord,
    latest_statuses,
    new_run_id,
    read_runs,
    scan_entry,
)
from msnmo_bids.bids.scans import find_scans


def test_round_trip(make_dataset, tmp_path):
    scan = find_scans(make_dataset("sub-01/anat/sub-01_FLAIR.nii.gz")).scans[0]
    record = RunRecord(tmp_path, "1", {"threshold": 0.5}, no_flair=["07"])
    record.scans = [scan_entry(scan, FAILED, step="checking", message="4D", remedy="Split it")]
    record.write(65)
    (run,) = read_runs(tmp_path)
    assert set(run) == {"RunId", "Started", "Finished", "Version", "Settings", "Scans", "NoFLAIR",
                        "Comparisons", "ExitCode"}  # fmt: skip
    assert run["Scans"] == [
        {
            "Scan": scan.relative, "Prefix": "sub-01", "Folder": "sub-01/anat", "Subject": "01",
            "Session": None, "Status": "failed", "Step": "checking", "Message": "4D",
            "Remedy": "Split it", "CrashFile": None,
        }
    ]  # fmt: skip
    assert (run["ExitCode"], run["NoFLAIR"]) == (65, ["07"])


def test_the_latest_entry_wins(tmp_path):
    for run_id, finished, status in [("b", "2026-01-01", FAILED), ("a", "2026-01-02", OK)]:
        folder = tmp_path / "logs" / run_id
        folder.mkdir(parents=True)
        scans = [{"Scan": "x", "Status": status}]
        if run_id == "b":
            scans.append({"Scan": "y", "Status": SKIPPED})
        run = {"RunId": run_id, "Finished": finished, "Scans": scans}
        (folder / "run.json").write_text(json.dumps(run))
    latest = latest_statuses(read_runs(tmp_path))
    assert latest["x"] == {"Scan": "x", "Status": OK, "RunId": "a"}
    assert latest["y"]["RunId"] == "b"


def test_broken_records_are_left_out(tmp_path, caplog):
    assert read_runs(tmp_path) == []
    for name, content in [("a", "{"), ("b", "{}"), ("c", '{"Scans": 1}'), ("d", "[]")]:
        (tmp_path / "logs" / name).mkdir(parents=True)
        (tmp_path / "logs" / name / "run.json").write_text(content)
    assert read_runs(tmp_path) == []
    assert caplog.text.count("cannot be read") == 4


def test_run_names_are_unique():
    assert len({new_run_id() for _ in range(50)}) == 50
