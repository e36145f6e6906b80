from __future__ import annotations

import gzip
import json
import os

import nibabel as nib
import numpy as np
import pytest
from site_data import AFFINE, SHAPE, Site, lesions, save

from msnmo_bids.bids.scans import find_scans
from msnmo_bids.errors import BadInputError
from msnmo_bids.labelled.lesion_masks import (
    CLOSED,
    LABEL_FOLDERS,
    LesionMasks,
    parse_mask_name,
    read_lesion_mask,
)


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path / "site")


def masks_of(site: Site) -> dict[str, tuple[str | None, str]]:
    """Return the name of the mask, or why there is none, for each scan."""
    scans = find_scans(site.root).scans
    masks = LesionMasks(site.root / "derivatives" / "manual", scans)
    found = {scan.prefix: masks.of(scan) for scan in scans}
    return {prefix: (path and path.name, why) for prefix, (path, why) in found.items()}


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_space-orig_label-L_desc-consensus_mask.nii.gz",
        "sub-01_space-orig_label-L_desc-truth_mask.nii.gz",
        "sub-01_ses-2_acq-3d_run-1_label-lesion_mask.nii",
        "sub-01_FLAIR_label-lesions_mask.nii.gz",
        "sub-01_label-WMH_dseg.nii.gz",
        "sub-01_space-orig_seg-lesions_dseg.nii.gz",
        "sub-01_desc-manualLesions_mask.nii.gz",
    ],
)
def test_names_of_lesion_masks(tmp_path, name):
    mask = parse_mask_name(tmp_path / name)
    assert mask is not None
    assert ("sub", "01") in mask.source
    assert mask.source <= {("sub", "01"), ("ses", "2"), ("acq", "3d"), ("run", "1")}


@pytest.mark.parametrize(
    "name",
    [
        "sub-01_space-orig_desc-brain_mask.nii.gz",
        "sub-01_space-orig_seg-tissue_dseg.nii.gz",
        "sub-01_label-GM_desc-lesionfilled_mask.nii.gz",
        "sub-01_label-L_probseg.nii.gz",
        "sub-01_label-L_mask.json",
        "sub-01_T1w_label-L_mask.nii.gz",
        "label-L_mask.nii.gz",
    ],
)
def test_names_of_other_files(tmp_path, name):
    assert parse_mask_name(tmp_path / name) is None


def test_the_sidecar_may_say_that_it_is_a_lesion_mask(tmp_path):
    path = tmp_path / "sub-01_desc-rater1_mask.nii.gz"
    assert parse_mask_name(path) is None
    path.with_name("sub-01_desc-rater1_mask.json").write_text(json.dumps({"Type": "Lesion"}))
    assert parse_mask_name(path) is not None


def test_a_mask_belongs_to_the_scan_whose_entities_it_has(site):
    site.add("01_ses-1_acq-2d", mask=True)
    site.add("01_ses-1_acq-3d", mask=True)
    site.add("01_ses-2", mask="label-L_mask")
    assert masks_of(site) == {
        "sub-01_ses-1_acq-2d": (
            "sub-01_ses-1_acq-2d_space-orig_label-L_desc-manual_mask.nii.gz", ""),
        "sub-01_ses-1_acq-3d": (
            "sub-01_ses-1_acq-3d_space-orig_label-L_desc-manual_mask.nii.gz", ""),
        "sub-01_ses-2": ("sub-01_ses-2_label-L_mask.nii.gz", ""),
    }  # fmt: skip


def test_a_mask_with_fewer_entities_must_fit_one_scan_only(site):
    site.add("01_acq-3d")
    site.mask("sub-01", "sub-01_label-L_mask")
    assert masks_of(site) == {"sub-01_acq-3d": ("sub-01_label-L_mask.nii.gz", "")}
    site.add("01_acq-2d")
    reason = "lesion mask that fits several scans (sub-01_label-L_mask.nii.gz)"
    assert masks_of(site) == {"sub-01_acq-2d": (None, reason), "sub-01_acq-3d": (None, reason)}


def test_of_several_masks_one_is_chosen_or_none(site):
    site.add("01")
    site.mask("sub-01", "sub-01_seg-lesions_dseg")
    assert masks_of(site)["sub-01"][0] == "sub-01_seg-lesions_dseg.nii.gz"
    site.mask("sub-01", "sub-01_label-L_desc-rater1_mask")
    assert masks_of(site)["sub-01"][0] == "sub-01_label-L_desc-rater1_mask.nii.gz"
    site.mask("sub-01", "sub-01_label-L_desc-rater2_mask")
    path, reason = masks_of(site)["sub-01"]
    assert path is None
    assert reason.startswith("several lesion masks (sub-01_label-L_desc-rater1_mask.nii.gz, ")
    site.mask("sub-01", "sub-01_label-L_desc-consensus_mask")
    assert masks_of(site)["sub-01"][0] == "sub-01_label-L_desc-consensus_mask.nii.gz"


def test_a_mask_in_another_space_is_not_taken(site):
    site.add("01", mask="space-MNI152NLin6Asym_label-L_mask")
    path, reason = masks_of(site)["sub-01"]
    assert path is None
    assert reason.startswith("lesion mask in another space (sub-01_space-MNI")


def test_grids_are_compared_in_ras_order(site):
    site.add("01", axcodes="LPS")
    site.mask("sub-01", "sub-01_label-L_mask", axcodes="SAR")
    assert masks_of(site)["sub-01"] == ("sub-01_label-L_mask.nii.gz", "")


@pytest.mark.parametrize(
    ("shift", "cut", "reason"),
    [
        (2.0, 0, "lesion mask on another grid (up to 2.0 mm away)"),
        (0.0, 3, "lesion mask on another grid (20x24x15 voxels for 20x24x18)"),
    ],
)
def test_a_mask_on_another_grid_is_not_taken(site, shift, cut, reason):
    site.add("01")
    affine = AFFINE.copy()
    affine[0, 3] += shift
    mask = lesions()[:, :, : SHAPE[2] - cut]
    site.mask("sub-01", "sub-01_label-L_mask", data=mask, affine=affine)
    assert masks_of(site)["sub-01"] == (None, reason)


def test_a_mask_that_is_no_image_is_not_taken(site):
    site.add("01")
    site.mask("sub-01", "sub-01_label-L_mask").write_bytes(gzip.compress(b"no image"))
    path, reason = masks_of(site)["sub-01"]
    assert path is None
    assert reason == "lesion mask cannot be read: not a NIfTI file"


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SAR"])
def test_a_mask_is_read_in_ras_order(tmp_path, axcodes):
    image = read_lesion_mask(save(lesions(), tmp_path / "mask.nii.gz", axcodes))
    assert np.array_equal(np.asarray(image.dataobj), lesions())
    assert np.allclose(image.affine, AFFINE)
    assert image.get_data_dtype() == np.uint8


def test_labels_and_probabilities_become_a_mask(tmp_path):
    numbered = lesions().astype(np.int16)
    numbered[12:14] *= 7
    assert np.array_equal(
        np.asarray(read_lesion_mask(save(numbered, tmp_path / "labels.nii.gz")).dataobj), lesions()
    )
    probability = 0.4 + 0.5 * lesions().astype(np.float32)
    assert np.array_equal(
        np.asarray(read_lesion_mask(save(probability, tmp_path / "p.nii.gz")).dataobj), lesions()
    )


def test_one_volume_in_four_dimensions_is_a_mask(tmp_path):
    nib.save(nib.Nifti1Image(lesions()[..., None], AFFINE), tmp_path / "mask.nii")
    assert read_lesion_mask(tmp_path / "mask.nii").shape == SHAPE


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (np.zeros((8, 8, 8, 2), np.uint8), "lesion mask of 8 x 8 x 8 x 2 voxels"),
        (np.full((8, 8, 8), np.nan, np.float32), "not finite numbers"),
        (np.eye(8)[None].repeat(8, 0) / 255, r"none above 0.5 \(the largest: 0.00392\)"),
        (-np.eye(8)[None].repeat(8, 0), r"none above 0.5 \(the largest: 0\)"),
        (1 - np.eye(8)[None].repeat(8, 0), "covers 88% of the image. If it shows what is no"),
    ],
)
def test_bad_masks_are_refused(tmp_path, data, problem):
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "mask.nii")
    with pytest.raises(BadInputError, match=problem):
        read_lesion_mask(tmp_path / "mask.nii")


def test_a_brain_mask_is_no_lesion_mask(tmp_path):
    brain = np.zeros((40, 40, 40), np.uint8)
    brain[:20] = 2
    nib.save(nib.Nifti1Image(brain, np.diag([4.0, 4, 4, 1])), tmp_path / "mask.nii")
    with pytest.raises(BadInputError, match="mask of 2048 ml, which is no lesion load"):
        read_lesion_mask(tmp_path / "mask.nii")


def test_folders_of_masks_that_may_not_be_read_are_named(site, monkeypatch):
    site.add("01", "MS", mask=True)

    def walk(folder, onerror):
        onerror(PermissionError(13, "Permission denied", str(folder / "sub-02")))
        return []

    scans = find_scans(site.root).scans
    assert LesionMasks(site.root / "derivatives" / "missing", scans).unused() == []
    monkeypatch.setattr(os, "walk", walk)
    [note] = LesionMasks(site.root / LABEL_FOLDERS[0], scans).unused()
    assert (note.what, note.about) == (CLOSED, "sub-02")


def test_a_probability_map_without_lesions_is_an_empty_mask(tmp_path):
    probability = np.random.default_rng(0).uniform(0, 0.4, SHAPE).astype(np.float32)
    assert not np.asarray(read_lesion_mask(save(probability, tmp_path / "p.nii.gz")).dataobj).any()


def test_what_msnmo_found_is_no_truth(site):
    site.add("01", mask="label-lesion_mask")
    site.add("02")
    for subject in ("01", "02"):
        for desc in ("msnmo", "brain+msnmo"):
            site.mask(f"sub-{subject}/", f"sub-{subject}_space-orig_label-L_desc-{desc}_mask")
    found = masks_of(site)
    assert found["sub-01"] == ("sub-01_label-lesion_mask.nii.gz", "")
    assert found["sub-02"][0] is None
    assert "one that msnmo found, which is no manual one" in found["sub-02"][1]


def test_a_mask_without_orientation_takes_the_one_assumed(tmp_path):
    data = np.zeros((4, 5, 6), np.uint8)
    data[0, 1, 2] = 1
    bare = nib.Nifti1Image(data, None)
    bare.header["sform_code"] = bare.header["qform_code"] = 0
    nib.save(bare, tmp_path / "bare.nii.gz")
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "own.nii.gz")
    lps = np.diag([-2.0, -2.0, 2.0, 1.0])
    mask = read_lesion_mask(tmp_path / "bare.nii.gz", lps)
    assert np.argwhere(np.asarray(mask.dataobj)).tolist() == [[3, 3, 2]]
    own = read_lesion_mask(tmp_path / "own.nii.gz", lps)
    assert np.argwhere(np.asarray(own.dataobj)).tolist() == [[0, 1, 2]]


def test_masks_that_no_scan_takes_are_named(site):
    for subject in ("01", "02", "03"):
        site.add(subject, mask=subject == "01")
    site.mask("sub-4/", "sub-4_label-L_mask")
    site.mask("sub-02/", "sub-02_mask")
    site.mask("sub-03/", "sub-03_label-L_mask")
    folder = site.root / "derivatives" / "manual"
    notes = LesionMasks(folder, find_scans(site.root).scans).unused()
    assert {note.about: note.what.split(" ")[0] for note in notes} == {
        "sub-4_label-L_mask.nii.gz": "lesion",
        "sub-02_mask.nii.gz": "images",
    }
    assert LesionMasks(folder, find_scans(site.root, participants=["01"]).scans).unused() == [
        notes[0]
    ]
