from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace

import pytest
from heads import VERSION, WEIGHTS

from msnmo_bids.bids.dataset import TEMPORARY_PREFIX
from msnmo_bids.bids.resume import (
    CHANGED,
    SIDECAR_CHANGED,
    Expected,
    diagnosis_path,
    glance,
    identify,
    old_files,
    read_diagnosis,
    remove_old_files,
    why_incomplete,
    why_other_image,
)
from msnmo_bids.bids.scans import find_scans
from msnmo_bids.errors import BadInputError

POINTERS = {
    "git-annex": b"/annex/objects/SHA256E-s999--aa.nii.gz\n",
    "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 999\n",
}
NAMES = (
    "sub-01/anat/sub-01_FLAIR.nii.gz",
    "sub-01/anat/sub-01_acq-3d_FLAIR.nii.gz",
    "sub-01/anat/sub-01_acq-3d_run-1_FLAIR.nii.gz",
)


@pytest.fixture
def scans(make_dataset):
    return find_scans(make_dataset(*NAMES)).scans


@pytest.fixture
def expected(settings):
    return Expected(settings, VERSION, WEIGHTS.fingerprint)


def test_complete(scans, expected, write_derivatives, tmp_path):
    assert why_incomplete(scans[0], tmp_path / "out", expected) == "not processed yet"
    write_derivatives(scans[0], tmp_path / "out")
    assert why_incomplete(scans[0], tmp_path / "out", expected) is None
    assert why_incomplete(scans[1], tmp_path / "out", expected) == "not processed yet"


def test_any_missing_output_is_noticed(scans, expected, write_derivatives, tmp_path):
    for path in write_derivatives(scans[0], tmp_path):
        content = path.read_bytes()
        path.unlink()
        assert why_incomplete(scans[0], tmp_path, expected) == f"{path.name} is missing"
        path.touch()
        assert why_incomplete(scans[0], tmp_path, expected) == f"{path.name} is missing"
        path.write_bytes(content)
    assert why_incomplete(scans[0], tmp_path, expected) is None


def test_a_damaged_output_is_noticed_and_a_corrected_one_stays(
    scans, expected, write_derivatives, tmp_path
):
    mask = next(p for p in write_derivatives(scans[0], tmp_path) if p.name.endswith("_mask.nii.gz"))
    content = mask.read_bytes()
    for broken in (content[: len(content) // 2], b"no gzip file"):
        mask.write_bytes(broken)
        assert why_incomplete(scans[0], tmp_path, expected) == f"{mask.name} is damaged"
    mask.write_bytes(gzip.compress(gzip.decompress(content), compresslevel=0))
    assert mask.stat().st_size != len(content)
    assert why_incomplete(scans[0], tmp_path, expected) is None


@pytest.mark.parametrize("ending", [".json", ".tsv", ".svg"])
def test_every_output_that_was_cut_is_noticed(scans, expected, write_derivatives, tmp_path, ending):
    files = [f for f in write_derivatives(scans[0], tmp_path) if f.name.endswith(ending)]
    assert files
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        assert why_incomplete(scans[0], tmp_path, expected) == f"{file.name} is damaged"
        file.write_bytes(content)
    assert why_incomplete(scans[0], tmp_path, expected) is None


def test_corrected_tables_sidecars_and_figures_stay(scans, expected, write_derivatives, tmp_path):
    for file in write_derivatives(scans[0], tmp_path):
        if file.suffix == ".tsv":
            edited = file.read_bytes().replace(b"\n", b"\tcorrected\r\n")
            file.write_bytes(edited if edited.count(b"\n") == 1 else edited.rstrip())
        elif file.suffix == ".svg":
            file.write_bytes(file.read_bytes() + b"\r\n")
        elif file.suffix == ".json":
            file.write_text(json.dumps(json.loads(file.read_text()), indent=7))
    assert why_incomplete(scans[0], tmp_path, expected) is None


def test_without_the_diagnosis_the_scan_was_interrupted(
    scans, expected, write_derivatives, tmp_path
):
    write_derivatives(scans[0], tmp_path)
    diagnosis_path(scans[0], tmp_path).unlink()
    assert why_incomplete(scans[0], tmp_path, expected) == "was interrupted"


@pytest.mark.parametrize("content", ["", "{broken", "[]", "{}", '{"Outputs": 3}'])
def test_broken_diagnosis(scans, expected, write_derivatives, tmp_path, content):
    write_derivatives(scans[0], tmp_path)
    diagnosis_path(scans[0], tmp_path).write_text(content)
    assert why_incomplete(scans[0], tmp_path, expected) == "its diagnosis file is broken"
    assert not read_diagnosis(scans[0], tmp_path) or content.startswith('{"')


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": "2"}, "made by version 9.9.9"),
        ({"weights": "b" * 64}, "made with other weights"),
        ({"threshold": 0.4}, "made with other settings (threshold was 0.5)"),
        ({"random_seed": 3}, "made with other settings (random_seed was 0)"),
        ({"device": "cuda"}, "made with other settings (device was cpu)"),
    ],
)
def test_what_differs_is_said(scans, expected, write_derivatives, tmp_path, change, reason):
    write_derivatives(scans[0], tmp_path)
    names = {"version", "weights"} & change.keys()
    if names:
        changed = replace(expected, **change)
    else:
        changed = replace(expected, settings=replace(expected.settings, **change))
    assert why_incomplete(scans[0], tmp_path, changed) == reason


def test_what_the_machine_chose_is_as_good(scans, expected, write_derivatives, tmp_path):
    write_derivatives(scans[0], tmp_path)
    automatic = replace(expected.settings, device="auto", precision="auto")
    open_settings = ("device", "precision")
    assert why_incomplete(scans[0], tmp_path, replace(expected, settings=automatic)) is not None
    left_open = replace(expected, settings=automatic, open_settings=open_settings)
    assert why_incomplete(scans[0], tmp_path, left_open) is None
    other = replace(left_open, settings=replace(automatic, threshold=0.1))
    assert why_incomplete(scans[0], tmp_path, other) == (
        "made with other settings (threshold was 0.5)"
    )


def test_a_changed_sidecar_is_noticed(scans, expected, write_derivatives, tmp_path):
    write_derivatives(scans[0], tmp_path)
    stripped = replace(scans[0], skull_stripped=True)
    assert "skull" in why_incomplete(stripped, tmp_path, expected)
    write_derivatives(stripped, tmp_path)
    assert why_incomplete(stripped, tmp_path, expected) is None
    assert "skull" in why_incomplete(scans[0], tmp_path, expected)


def test_a_sidecar_that_says_something_for_the_first_time_is_noticed(
    scans, expected, write_derivatives, tmp_path
):
    """Until then the image was asked; a sidecar counts for more."""
    write_derivatives(scans[0], tmp_path)
    assert why_incomplete(scans[0], tmp_path, expected) is None
    for said in (True, False):
        now = replace(scans[0], skull_stripped=said)
        assert "skull" in why_incomplete(now, tmp_path, expected)


def test_only_the_files_of_this_scan_are_removed(scans, expected, write_derivatives, tmp_path):
    files = {scan.prefix: write_derivatives(scan, tmp_path) for scan in scans}
    for scan in scans:
        name = f"{TEMPORARY_PREFIX}0123456789ab-{scan.prefix}_desc-preproc_FLAIR.nii.gz"
        files[scan.prefix].append(tmp_path / scan.folder / name)  # as a killed process leaves it
        files[scan.prefix][-1].touch()
    foreign = tmp_path / scans[0].folder / "sub-01_desc-manual_mask.nii.gz"
    foreign.touch()
    count = remove_old_files(scans[1], tmp_path)
    assert count == len(set(files["sub-01_acq-3d"])) + 1
    assert not any(path.exists() for path in files["sub-01_acq-3d"])
    assert all(path.exists() for path in files["sub-01"])
    assert all(path.exists() for path in files["sub-01_acq-3d_run-1"])
    assert foreign.exists()
    assert why_incomplete(scans[1], tmp_path, expected) == "not processed yet"
    assert why_incomplete(scans[0], tmp_path, expected) is None


def test_the_diagnosis_goes_first(scans, write_derivatives, tmp_path):
    write_derivatives(scans[0], tmp_path)
    assert next(old_files(scans[0], tmp_path)) == diagnosis_path(scans[0], tmp_path)


def test_maps_of_unknown_classes_are_old_files(scans, tmp_path):
    folder = tmp_path / scans[0].folder
    folder.mkdir(parents=True)
    (folder / "sub-01_space-orig_desc-camMOGAD_map.nii.gz").touch()
    assert remove_old_files(scans[0], tmp_path) == 1


def test_empty_folders_go_too(scans, write_derivatives, tmp_path):
    write_derivatives(scans[0], tmp_path)
    write_derivatives(scans[1], tmp_path)
    remove_old_files(scans[0], tmp_path)
    assert (tmp_path / "sub-01/anat").is_dir()
    remove_old_files(scans[1], tmp_path)
    assert list(tmp_path.glob("sub-*")) == []


@pytest.fixture
def scan(make_dataset):
    return find_scans(make_dataset("sub-01/anat/sub-01_FLAIR.nii.gz")).scans[0]


@pytest.fixture
def recorded(scan):
    return identify(scan, glance(scan))


def test_a_copy_of_the_same_image_is_the_same(scan, recorded):
    assert why_other_image(scan, recorded) is None
    os.utime(scan.path, (1e9, 1e9))
    assert why_other_image(scan, recorded) is None


def test_the_checksum_decides_where_size_and_time_do_not(scan, recorded):
    content = bytearray(scan.path.read_bytes())
    content[-1] ^= 1
    scan.path.write_bytes(content)
    os.utime(scan.path, (1e9, 1e9))
    assert scan.path.stat().st_size == recorded["Size"]
    assert why_other_image(scan, recorded) == CHANGED
    scan.path.write_bytes(bytes(content) + b"more")
    assert why_other_image(scan, recorded) == CHANGED


def test_nothing_is_read_where_size_and_time_are_the_same(scan, recorded, monkeypatch):
    def read(*_):
        raise AssertionError("the checksum was computed")

    monkeypatch.setattr("msnmo_bids.bids.resume._checksum", read)
    assert why_other_image(scan, recorded) is None
    os.utime(scan.path, (1e9, 1e9))
    with pytest.raises(AssertionError, match="computed"):
        why_other_image(scan, recorded)


def test_what_was_used_of_the_sidecar_counts(scan, recorded):
    assert why_other_image(replace(scan, skull_stripped=False), recorded) == SIDECAR_CHANGED


@pytest.mark.parametrize("kind", [*POINTERS, "link"])
def test_of_an_image_whose_content_is_elsewhere_nobody_can_tell(scan, recorded, kind):
    scan.path.unlink()
    if kind == "link":
        scan.path.symlink_to("../../.git/annex/objects/nothing")
    else:
        scan.path.write_bytes(POINTERS[kind])
    assert glance(scan) is None
    assert why_other_image(scan, recorded) is None
    # The content of its sidecar may be elsewhere, too.
    assert why_other_image(replace(scan, skull_stripped=True), recorded) is None


def test_an_image_that_changes_while_it_is_processed_is_refused(scan):
    seen = glance(scan)
    os.utime(scan.path, (1e9, 1e9))
    with pytest.raises(BadInputError, match="changed while it was processed"):
        identify(scan, seen)


@pytest.mark.parametrize("recorded", [None, "unknown", []])
def test_results_that_do_not_say_of_which_image_they_are(scan, recorded):
    assert "does not say which image" in why_other_image(scan, recorded)
