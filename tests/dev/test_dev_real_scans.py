"""Real scans by weights that never saw their source: who is read, and how changes are scored."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from dev.real_scans import people_of, read_diagnoses, score_changes
from msnmo_bids.bids.names import change_paths
from msnmo_bids.vocabulary import CHANGES


def test_a_source_is_read_with_its_raw_scans_and_no_others(tmp_path):
    for folder in ("ds-ljubljana-labelled/sub-07", "ds-ljubljana/sub-01", "ds-ljubljana/sub-03",
                   "ds-clinical-labelled/sub-01", "ds-clinical-labelled/sub-06"):  # fmt: skip
        (tmp_path / folder).mkdir(parents=True)
    found = {data.name: labels for data, labels in people_of("ljubljana", tmp_path)}
    assert found == {"ds-ljubljana-labelled": ["07"], "ds-ljubljana": ["01", "03"]}
    found = {data.name: labels for data, labels in people_of("site-b", tmp_path)}
    assert found == {"ds-clinical-labelled": ["06"]}


def test_what_is_named_is_read(tmp_path):
    content = {
        "LesionCount": 2, "LesionVolume": 1.5, "Probabilities": {"MS": 0.9, "NMOSD": 0.1},
        "Diagnosis": "MS", "Reason": None,
    }  # fmt: skip
    (tmp_path / "sub-1_ses-a_FLAIR_desc-msnmo_diagnosis.json").write_text(json.dumps(content))
    [row] = read_diagnoses(tmp_path, "site-b", "ds")
    assert (row["scan"], row["score_MS"], row["diagnosis"]) == ("ds/sub-1_ses-a", 0.9, "MS")


def test_changes_are_scored_where_both_visits_meet(tmp_path):
    """The later visit lies 2 voxels from the half-way space; one part of two is told as changed."""
    paths = change_paths(
        ("sub-1/ses-a/anat", "sub-1_ses-a"), ("sub-1/ses-b/anat", "sub-1_ses-b"),
        subject="1", space="sesasesb",
    )  # fmt: skip
    values = {name: number for number, name in enumerate(CHANGES, start=1)}
    classes = np.zeros((20, 20, 20), np.uint8)
    classes[2:6, 2:6, 2:6] = values["enlarging"]
    classes[10:12, 10:12, 10:12] = values["stable"]
    classes[15:18, 15:18, 2:4] = values["new"]  # nothing changed there
    changed = np.zeros((20, 20, 20), np.uint8)
    changed[2 + 2 : 4 + 2, 2:6, 2:6] = 1
    changed[10 + 2 : 12 + 2, 10:12, 10:12] = 1
    truth = tmp_path / "truth/sub-1/ses-b/anat/sub-1_ses-b_desc-change_mask.nii.gz"
    to_later = np.eye(4)
    to_later[0, 3] = 2.0
    for file, array in ((tmp_path / "out" / paths["classes"], classes), (truth, changed)):
        file.parent.mkdir(parents=True, exist_ok=True)
        nib.Nifti1Image(array, np.eye(4)).to_filename(file)
    record = {"Registration": {"HalfwayToLater": to_later.tolist()}}
    (tmp_path / "out" / paths["record"]).write_text(json.dumps(record))
    [row] = score_changes(tmp_path / "out", tmp_path / "truth")
    assert row["visit"] == "sub-1/ses-b"
    assert row["changed_ml"] == pytest.approx(0.040)
    assert row["told_ml"] == pytest.approx(0.082)
    assert row["inside_changed"] == pytest.approx(0.8)
    assert row["inside_any"] == 1.0
    assert (row["parts"], row["parts_told"], row["told"], row["false_alarms"]) == (2, 1, 2, 1)
