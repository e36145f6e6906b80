"""A simulated BIDS data set."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msnmo_bids.preprocessing.geometry import to_native
from msnmo_bids.simulation.acquisition import Protocol
from msnmo_bids.simulation.dataset import Geometry, as_image, write_dataset

PROTOCOLS = (
    Protocol("2D", (1.0, 1.0, 4.0), 3.5, 0.02, 0.1),
    Protocol("3D", (1.2, 1.2, 1.2), 1.2, 0.02, 0.1),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, tiny_head) -> Path:
    out = tmp_path_factory.mktemp("data") / "bids"
    return write_dataset(
        out, [tiny_head], 3, seed=2, diagnoses=("MS", "NMOSD", "HC"), protocols=PROTOCOLS
    )


def flair_of(dataset: Path, subject: str) -> Path:
    return dataset / subject / "anat" / f"{subject}_FLAIR.nii.gz"


def truth_of(dataset: Path, subject: str) -> Path:
    name = f"{subject}_space-orig_label-L_desc-truth_mask.nii.gz"
    return dataset / "derivatives" / "truth" / subject / "anat" / name


@pytest.mark.parametrize("folder", [".", "derivatives/truth"])
def test_is_valid_bids(dataset, folder):
    program = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    program = program or shutil.which("bids-validator-deno")
    if program is None:
        pytest.skip("the BIDS validator is not installed")
    command = [program, str(dataset / folder), "--ignoreWarnings", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


@pytest.mark.parametrize("subject", ["sub-01", "sub-02", "sub-03"])
def test_truth_is_on_the_grid_of_the_flair(dataset, subject):
    flair, truth = nib.load(flair_of(dataset, subject)), nib.load(truth_of(dataset, subject))
    assert flair.shape == truth.shape
    np.testing.assert_array_equal(flair.affine, truth.affine)
    assert nib.aff2axcodes(flair.affine) == ("L", "P", "S")
    for image in (flair, truth):
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
        assert int(image.header["sform_code"]) == 1
    assert flair.get_data_dtype() == np.int16
    assert truth.get_data_dtype() == np.uint8
    mask = np.asarray(truth.dataobj) > 0
    values = np.asarray(flair.dataobj)
    if subject == "sub-03":
        assert not mask.any()
    else:
        bright = values[mask].mean() / np.median(values[values > 150])
        assert bright > 1.1  # the mask lies on what is bright in the image


def test_participants(dataset):
    rows = (dataset / "participants.tsv").read_text().splitlines()
    assert rows == [
        "participant_id\tdiagnosis", "sub-01\tMS", "sub-02\tNMOSD", "sub-03\tHC"
    ]  # fmt: skip
    levels = json.loads((dataset / "participants.json").read_text())["diagnosis"]["Levels"]
    assert set(levels) == {"MS", "NMOSD", "HC"}


def test_sidecars(dataset):
    content = json.loads(
        flair_of(dataset, "sub-01").with_suffix("").with_suffix(".json").read_text()
    )
    assert content["SkullStripped"] is False
    assert content["SliceThickness"] == 3.5
    content = json.loads(
        truth_of(dataset, "sub-02").with_suffix("").with_suffix(".json").read_text()
    )
    assert content["Sources"] == ["bids:raw:sub-02/anat/sub-02_FLAIR.nii.gz"]
    assert content["SpatialReference"] == "orig"


def test_same_seed_same_files(dataset, tmp_path, tiny_head):
    again = write_dataset(
        tmp_path / "again", [tiny_head], 1, seed=2, diagnoses=("MS",), protocols=PROTOCOLS
    )
    for path_of in (flair_of, truth_of):
        one, other = nib.load(path_of(dataset, "sub-01")), nib.load(path_of(again, "sub-01"))
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
        np.testing.assert_array_equal(one.affine, other.affine)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "PIR", "ASL"])
def test_as_image_and_back(tmp_path, axcodes):
    array = np.arange(9 * 10 * 11, dtype=np.int16).reshape(9, 10, 11)
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    affine[:3, 3] = (-4, 5, 6)
    image = as_image(array, affine, Geometry(axcodes, (3.0, -5.0, 8.0)))
    assert "".join(nib.aff2axcodes(image.affine)) == axcodes
    nib.save(image, tmp_path / "image.nii")
    ras = np.asarray(nib.as_closest_canonical(image).dataobj)
    np.testing.assert_array_equal(ras, array)
    np.testing.assert_array_equal(
        np.asarray(to_native(array, tmp_path / "image.nii").dataobj), np.asarray(image.dataobj)
    )
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
