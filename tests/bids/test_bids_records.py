from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from msnmo_bids.bids.records import (
    RunRecord,
    ScanRecord,
    Status,
    latest_records,
    new_run_id,
    read_runs,
    read_scan,
    scans_with_results,
)
from msnmo_bids.bids.scans import find_scans


def test_round_trip(make_dataset, tmp_path):
    scan = find_scans(make_dataset("sub-01/anat/sub-01_FLAIR.nii.gz")).scans[0]
    record = RunRecord(tmp_path, "1", {"threshold": 0.5}, no_flair=["07"])
    problem = {"step": "checking", "message": "4D", "remedy": "Split it"}
    record.scans = [ScanRecord.of(scan, Status.FAILED, **problem)]
    record.write(65)
    (run,) = read_runs(tmp_path)
    assert set(run) == {"RunId", "Started", "Finished", "Version", "Settings", "Scans", "NoFLAIR",
                        "Comparisons", "ExitCode"}  # fmt: skip
    assert run["Scans"] == [
        {
            "Scan": scan.relative, "Prefix": "sub-01", "Folder": "sub-01/anat", "Subject": "01",
            "Session": None, "Status": "failed", "Step": "checking", "Message": "4D",
            "Remedy": "Split it", "CrashFile": None, "Steps": None,
        }
    ]  # fmt: skip
    assert (run["ExitCode"], run["NoFLAIR"]) == (65, ["07"])
    assert latest_records([run]) == {scan.relative: record.scans[0]}


def test_the_latest_run_that_tried_a_scan_wins(tmp_path):
    days = [
        ("b", 1, {"x": Status.FAILED, "y": Status.FAILED}),
        ("a", 2, {"x": Status.COMPLETE}),
        ("c", 3, {"x": Status.PENDING}),
    ]
    for run_id, day, states in days:
        (tmp_path / "logs" / run_id).mkdir(parents=True)
        scans = [ScanRecord(x, "1", None, x, "f", status).entry() for x, status in states.items()]
        run = {"RunId": run_id, "Finished": f"2026-01-0{day}", "Scans": [*scans, "odd", {}]}
        (tmp_path / "logs" / run_id / "run.json").write_text(json.dumps(run))
    latest = latest_records(read_runs(tmp_path))
    assert {name: record.status for name, record in latest.items()} == {
        "x": Status.COMPLETE,
        "y": Status.FAILED,
    }


def test_what_processing_cost_outlives_runs_that_found_the_scan_complete():
    cost = {"figures": {"WallSeconds": 1.0, "CPUSeconds": 2.0, "MemoryGB": 0.5}}
    first = ScanRecord("x", "1", None, "x", "f", Status.COMPLETE, steps=cost)
    runs = [
        {"Scans": [record.entry()]}
        for record in (first, replace(first, steps={}), replace(first, steps={}))
    ]
    assert latest_records(runs)["x"].steps == cost
    failed = replace(first, steps={}, status=Status.FAILED)
    assert latest_records([*runs, {"Scans": [failed.entry()]}])["x"].steps == {}


def test_broken_records_are_left_out(tmp_path, caplog):
    assert read_runs(tmp_path) == []
    for name, content in [("a", "{"), ("b", "{}"), ("c", '{"Scans": 1}'), ("d", "[]")]:
        (tmp_path / "logs" / name).mkdir(parents=True)
        (tmp_path / "logs" / name / "run.json").write_text(content)
    assert read_runs(tmp_path) == []
    assert caplog.text.count("cannot be read") == 4


def test_run_names_are_unique():
    assert len({new_run_id() for _ in range(50)}) == 50


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LesionVolume", "12,3"),
        ("LesionCount", True),
        ("Probabilities", None),
        ("VoxelSize", ["1,0"]),
        ("Model", "mine"),
        ("Flags", "motion"),
        ("Regions", []),
        ("Diagnosis", "RRMS"),
    ],
)
def test_a_diagnosis_file_edited_by_hand_is_named(add_results, name, value):
    record = add_results("sub-01/anat/sub-01_FLAIR.nii.gz", **{name: value})
    assert record.status == Status.FAILED
    assert (
        record.message
        == f"sub-01_desc-msnmo_diagnosis.json holds what was not written by msnmo ({name})"
    )
    assert record.diagnosis == {}


def test_a_volume_that_is_no_number_is_named(add_results, tmp_path):
    record = add_results("sub-01/anat/sub-01_FLAIR.nii.gz")
    [file] = (tmp_path / "out").rglob("*_diagnosis.json")
    whole = file.read_text()
    for before, after, name in (
        ('"LesionVolume": 1.25', '"LesionVolume": NaN', "LesionVolume"),
        ('"Volume": 1.25', '"Volume": "1,25"', "Regions.periventricular"),
        ('"MS": 0.75', '"MS": "high"', "Probabilities.MS"),
    ):
        assert before in whole
        file.write_text(whole.replace(before, after))
        assert read_scan(tmp_path / "out", record).message.endswith(f"by msnmo ({name})")


def test_a_copy_of_a_persons_folder_is_not_the_person(add_results, tmp_path):
    add_results("sub-01/anat/sub-01_FLAIR.nii.gz")
    shutil.copytree(tmp_path / "out/sub-01", tmp_path / "out/sub-01_old")
    shutil.copytree(tmp_path / "out/sub-01/anat", tmp_path / "out/sub-01/anat_old/anat")
    assert [one.folder for one in scans_with_results(tmp_path / "out")] == ["sub-01/anat"]
