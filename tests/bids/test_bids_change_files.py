"""Comparisons of visits that are complete are kept, stale ones go."""

from __future__ import annotations

import json

import pytest

from msnmo_bids.bids.change_files import (
    change_files,
    fingerprint,
    is_compared,
    paths_of,
    remove_stale,
    why_not_comparable,
)
from msnmo_bids.bids.comparisons import comparisons
from msnmo_bids.bids.dataset import TEMPORARY_PREFIX, write_json
from msnmo_bids.bids.resume import diagnosis_path
from msnmo_bids.bids.scans import find_scans

NAMES = [f"sub-01/ses-{k}/anat/sub-01_ses-{k}_FLAIR.nii.gz" for k in (1, 2, 3)]
METHOD = {"version": "1", "LeastVolume": 14.0}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def pairs(make_dataset, write_derivatives, out):
    root = make_dataset(*NAMES)
    scans = find_scans(root).scans
    for scan in scans:
        write_derivatives(scan, out)
    found = comparisons(scans)
    for comparison in found:
        paths = paths_of(comparison)
        for path in paths.values():
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).write_text("content")
        record = {
            "Fingerprint": fingerprint(comparison, out, METHOD),
            "Outputs": {path: 7 for kind, path in paths.items() if kind != "record"},
        }
        write_json(out / paths["record"], record)
    return found


def test_complete_until_anything_changes(pairs, out):
    one = pairs[0]
    assert is_compared(one, out, METHOD)
    assert not is_compared(one, out, {**METHOD, "LeastVolume": 30.0})
    assert not is_compared(one, out, {**METHOD, "version": "2"})
    (out / paths_of(one)["earlier_mask"]).write_text("")
    assert not is_compared(one, out, METHOD)
    assert is_compared(pairs[1], out, METHOD)
    diagnosis = diagnosis_path(pairs[1].later, out)
    diagnosis.write_text(diagnosis.read_text() + " ")
    assert not is_compared(pairs[1], out, METHOD)


def test_stale_files_go_and_nothing_else(pairs, out):
    half_written = out / paths_of(pairs[1])["table"]
    half_written = half_written.with_name(f"{TEMPORARY_PREFIX}0123456789ab-{half_written.name}")
    half_written.write_text("x")
    before = {path for path in out.rglob("*") if path.is_file()}
    first = next(change_files("01", out))
    assert first.name.endswith("_changes.json")
    remove_stale("01", pairs[:1], out)
    gone = before - {path for path in out.rglob("*") if path.is_file()}
    assert gone == {half_written, *(out / path for path in paths_of(pairs[1]).values())}
    left = set(out.rglob("*"))
    remove_stale("01", pairs[:1], out)
    remove_stale("1", [], out)
    assert set(out.rglob("*")) == left


def test_the_same_image_at_both_visits_is_not_compared(pairs, write_derivatives, out):
    one = pairs[0]
    assert why_not_comparable(one, out) is None
    one.later.path.write_bytes(one.earlier.path.read_bytes())
    write_derivatives(one.later, out)
    assert why_not_comparable(one, out) == "the images of both visits are the same"


def test_scans_made_with_other_settings_are_not_compared(pairs, out):
    one = pairs[0]
    assert why_not_comparable(one, out) is None
    path = diagnosis_path(one.later, out)
    record = json.loads(path.read_text())
    for key, value, same in (("device", "cuda", True), ("threshold", 0.123, False)):
        write_json(path, {**record, "Settings": {**record["Settings"], key: value}})
        assert (why_not_comparable(one, out) is None) == same
    path.unlink()
    assert "has no derivatives" in why_not_comparable(one, out)
