"""The group's tables and page: one row per scan, BIDS-valid phenotype files."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from heads import diagnosis, entry
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import Page, assert_self_contained

from msnmo_bids.bids.dataset import write_json, write_shared_files
from msnmo_bids.bids.records import ScanRecord
from msnmo_bids.group.distribution import VOLUME, distribution
from msnmo_bids.group.write import step_costs, write_group
from msnmo_bids.reports.report_text import ALWAYS

VALIDATOR = Path(sys.executable).parent / "bids-validator-deno"
GOOD = "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz"
SECOND = "sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz"
CLEAN = "sub-02/anat/sub-02_FLAIR.nii.gz"
BAD = "sub-03/anat/sub-03_FLAIR.nii.gz"
NOT_YET = "sub-04/anat/sub-04_FLAIR.nii.gz"
Add = Callable[..., ScanRecord]


@pytest.fixture
def scans(add_results: Add) -> list[ScanRecord]:
    """Two visits of one person, one without lesions, a failed and a pending scan."""
    return [
        add_results(SECOND, LesionVolume=2.5),
        add_results(GOOD),
        add_results(
            CLEAN,
            Diagnosis="indeterminate",
            Reason="No lesion",
            LesionCount=0,
            LesionVolume=0.0,
            Regions={},
            Flags=["no_lesion_found"],
        ),
        entry(BAD, "failed", step="conform", message="truncated\tfile", remedy="Copy it <again>"),
        entry(NOT_YET),
    ]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_every_scan_is_a_row(scans: list[ScanRecord], output_dir: Path) -> None:
    written = write_group(output_dir, scans)
    assert all(path.is_file() for path in written)
    rows = {row["scan"]: row for row in table(output_dir / "group_FLAIR.tsv")}
    assert list(rows) == [GOOD, SECOND, CLEAN, BAD, NOT_YET]
    good = rows[GOOD]
    assert good["diagnosis"] == "MS"
    assert float(good["probability_MS"]) + float(good["probability_NMOSD"]) == 1
    assert good["lesion_volume_ml"] == "1.25"
    assert good["periventricular_count"] == "2"
    assert good["deep_count"] == "0"
    assert good["session_id"] == "ses-1"
    assert good["reason"] == "n/a"
    assert rows[CLEAN]["session_id"] == "n/a"
    assert rows[CLEAN]["diagnosis"] == "indeterminate"
    assert rows[CLEAN]["reason"] == "No lesion"


def test_failed_and_pending_scans_have_the_reason_and_no_values(
    scans: list[ScanRecord], output_dir: Path
) -> None:
    write_group(output_dir, scans)
    rows = {row["scan"]: row for row in table(output_dir / "group_FLAIR.tsv")}
    assert rows[BAD]["status"] == "failed"
    assert rows[BAD]["reason"] == "conform: truncated file"
    assert rows[NOT_YET]["status"] == "pending"
    assert rows[NOT_YET]["reason"] == "not processed yet"
    known = {"participant_id", "session_id", "scan", "status", "reason"}
    for scan in (BAD, NOT_YET):
        assert {value for name, value in rows[scan].items() if name not in known} == {"n/a"}


def test_all_failed(output_dir: Path) -> None:
    write_group(output_dir, [entry(BAD, "failed", message="bad")])
    assert len(table(output_dir / "group_FLAIR.tsv")) == 1
    assert "Lesion load" not in (output_dir / "group_FLAIR.html").read_text()


def test_participants_own_diagnosis_stands_beside(
    scans: list[ScanRecord], output_dir: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    text = "participant_id\tdiagnosis\nsub-01\tNMOSD\nsub-02\tn/a\n"
    (raw / "participants.tsv").write_text(text)
    write_group(output_dir, scans, bids_dir=raw)
    rows = {row["scan"]: row for row in table(output_dir / "group_FLAIR.tsv")}
    assert rows[GOOD]["participants_diagnosis"] == "NMOSD"
    assert rows[CLEAN]["participants_diagnosis"] == "n/a"
    page = Page((output_dir / "group_FLAIR.html").read_text())
    assert "all NMOSD 2 0 0 0" in page.text  # two scans of sub-01, which the model calls MS
    assert "No real NMOSD scan was available to the developers" in page.text


@pytest.mark.parametrize("content", [None, "", "participant_id\tage\nsub-01\t3\n"])
def test_without_such_a_column_there_is_none(
    scans: list[ScanRecord], output_dir: Path, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "participants.tsv").write_text(content)
    write_group(output_dir, scans, bids_dir=tmp_path)
    assert "participants_diagnosis" not in table(output_dir / "group_FLAIR.tsv")[0]
    assert "Against participants.tsv" not in (output_dir / "group_FLAIR.html").read_text()


def test_page_is_self_contained_and_links_to_reports(
    scans: list[ScanRecord], output_dir: Path
) -> None:
    write_group(output_dir, scans)
    source = (output_dir / "group_FLAIR.html").read_text()
    page = assert_self_contained(source)
    links = [value for tag, name, value in page.links if (tag, name) == ("a", "href")]
    assert "sub-01.html#sub-01_ses-2" in links
    assert "sub-03.html" in links
    for sentence in ALWAYS:
        assert sentence in page.text
    assert "3 of 5" in page.text  # with results
    assert "conform: truncated file. Copy it <again>" in page.text
    assert len(re.findall("<circle", source)) == 6  # three scans in each of two plots
    assert "<again>" not in source


def test_scores_are_shown_where_a_diagnosis_is_named(
    scans: list[ScanRecord], add_results: Add, output_dir: Path
) -> None:
    unsure = add_results("sub-05/anat/sub-05_FLAIR.nii.gz", Diagnosis="indeterminate", Reason="?")
    write_group(output_dir, [*scans, unsure])
    source = (output_dir / "group_FLAIR.html").read_text()
    for subject, shown in (("01", True), ("02", False), ("05", False)):
        row = source[source.index(f'href="sub-{subject}.html#') :]
        assert ("0.75" in row[: row.index("</tr>")]) == shown
    rows = {row["participant_id"]: row for row in table(output_dir / "group_FLAIR.tsv")}
    assert rows["sub-05"]["probability_MS"] == "0.75"


def test_what_is_never_named_has_scores_but_no_tile(add_results: Add, output_dir: Path) -> None:
    scores = {"MS": 0.5, "NMOSD": 0.1, "SVD": 0.4}
    scan = add_results(GOOD, Probabilities=scores, Diagnosis="indeterminate", Reason="?")
    write_group(output_dir, [scan])
    source = (output_dir / "group_FLAIR.html").read_text()
    tiles = source[source.index('<div class="tiles">') : source.index('id="scans"')]
    assert "SVD" not in tiles
    assert all(name in tiles for name in ("MS", "NMOSD", "indeterminate"))
    assert table(output_dir / "group_FLAIR.tsv")[0]["probability_SVD"] == "0.4"


def test_equal_results_give_equal_files(scans: list[ScanRecord], output_dir: Path) -> None:
    one = [path.read_bytes() for path in write_group(output_dir, scans)]
    other = [path.read_bytes() for path in write_group(output_dir, scans[::-1])]
    assert one == other


def test_phenotype_has_each_scan_once_and_each_participant_once_a_file(
    scans: list[ScanRecord], output_dir: Path
) -> None:
    write_group(output_dir, scans)
    files = sorted((output_dir / "phenotype").glob("*.tsv"))
    assert [path.name for path in files] == ["msnmo.tsv", "msnmo_scan2.tsv"]
    rows = [row for path in files for row in table(path)]
    assert sorted(row["scan"] for row in rows) == sorted([GOOD, SECOND, CLEAN, BAD, NOT_YET])
    for path in files:
        people = [row["participant_id"] for row in table(path)]
        assert len(people) == len(set(people))
        about = json.loads(path.with_suffix(".json").read_text())
        assert set(table(path)[0]) <= set(about)
        assert "not a medical device" in about["MeasurementToolMetadata"]["Description"]
    assert next(iter(table(files[0])[0])) == "participant_id"


def test_phenotype_files_of_an_earlier_run_go(scans: list[ScanRecord], output_dir: Path) -> None:
    write_group(output_dir, scans)
    write_group(output_dir, scans[1:])
    names = sorted(path.name for path in (output_dir / "phenotype").iterdir())
    assert names == ["msnmo.json", "msnmo.tsv"]


@pytest.mark.skipif(not VALIDATOR.exists(), reason="bids-validator-deno is not installed")
def test_the_tree_is_valid_bids(scans: list[ScanRecord], output_dir: Path, tmp_path: Path) -> None:
    for scan in scans[:3]:
        path = output_dir / scan.folder / f"{scan.prefix}_desc-preproc_FLAIR.nii.gz"
        nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), path)
        write_json(Path(str(path).replace(".nii.gz", ".json")), {"SkullStripped": True})
    write_shared_files(output_dir, tmp_path, ["MS", "NMOSD"])
    (tmp_path / "participants.tsv").write_text("participant_id\tdiagnosis\nsub-01\tMS\n")
    write_group(output_dir, scans, bids_dir=tmp_path)
    result = subprocess.run(
        [VALIDATOR, str(output_dir), "--ignoreWarnings"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


values = st.lists(st.floats(0, 500, allow_nan=False), max_size=30)


@settings(deadline=None)
@given(values, values)
def test_dots_are_in_their_lane_and_in_order(one: list[float], other: list[float]) -> None:
    groups = {
        name: [(f"scan {k}", value) for k, value in enumerate(numbers)]
        for name, numbers in (("MS", one), ("NMOSD", other))
    }
    colours = {"MS": "#111111", "NMOSD": "#222222"}
    plot = distribution(VOLUME, groups, colours, by="class")
    assert [lane.name for lane in plot.groups] == [name for name, them in groups.items() if them]
    for lane in plot.groups:
        assert all(plot.left <= dot.x <= plot.right for dot in lane.dots)
        assert all(abs(dot.y - lane.y) < 29 for dot in lane.dots)
        by_value = sorted(lane.dots, key=lambda dot: dot.value)
        assert [dot.x for dot in by_value] == sorted(dot.x for dot in lane.dots)


def test_diagnosis_of_more_classes(add_results: Add, output_dir: Path) -> None:
    three = {"MS": 0.2, "NMOSD": 0.1, "healthy": 0.7}
    scan = add_results(GOOD, Diagnosis="healthy", Probabilities=three)
    write_group(output_dir, [scan, add_results(CLEAN)])
    rows = table(output_dir / "group_FLAIR.tsv")
    assert rows[0]["probability_healthy"] == "0.7"
    assert rows[1]["probability_healthy"] == "n/a"
    assert diagnosis(GOOD)["Diagnosis"] == rows[1]["diagnosis"]


def test_what_the_steps_cost_is_summarised_over_the_scans() -> None:
    def scan(wall: float, memory: float, *more: str) -> ScanRecord:
        cost = {"WallSeconds": wall, "CPUSeconds": 2 * wall, "MemoryGB": memory}
        return replace(entry(GOOD), steps=dict.fromkeys(("figures", *more), cost))

    costs = step_costs([scan(1.0, 0.5), scan(2.0, 1.5), scan(6.0, 1.0, "n4"), entry(BAD)])
    columns = ("step", "scans", "WallSeconds", "CPUSeconds", "MemoryGB", "share")
    assert costs == [
        dict(zip(columns, ("figures", 3, 2.0, 4.0, 1.5, pytest.approx(1 / 3)), strict=True)),
        dict(zip(columns, ("n4", 1, 6.0, 12.0, 1.0, 1.0), strict=True)),
    ]
    assert step_costs([entry(BAD)]) == []
