"""N4 on a phantom whose field is known."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msnmo_bids.errors import BadInputError
from msnmo_bids.preprocessing.bias import masked, n4_antspyx

SHAPE = (40, 44, 36)
ZOOMS = (4.0, 4.0, 4.5)


@pytest.fixture(scope="module")
def phantom() -> dict[str, np.ndarray]:
    """Two tissues, a smooth field of factor 2.2 from end to end, and a little noise."""
    rng = np.random.default_rng(0)
    axes = [np.linspace(-1, 1, n) for n in SHAPE]
    place = np.stack(np.meshgrid(*axes, indexing="ij"))
    radius = np.sqrt((place**2).sum(axis=0))
    brain = radius < 0.85
    white = radius < 0.6
    tissue = np.where(white, 400.0, 450.0) * brain + 20.0
    field = np.exp(0.4 * place[0] - 0.25 * place[1] * place[2] + 0.2 * place[2])
    image = tissue * field + rng.normal(0, 4, SHAPE)
    return {"image": image.astype(np.float32), "brain": brain, "white": white, "field": field}


@pytest.fixture
def files(phantom, save) -> tuple[Path, Path]:
    affine = np.diag([*ZOOMS, 1.0])
    affine[:3, 3] = (-70, 30, 11)
    image = save(phantom["image"], affine, "flair.nii.gz")
    return image, save(phantom["brain"].astype(np.uint8), affine, "mask.nii.gz")


def variation(values: np.ndarray) -> float:
    return float(values.std() / values.mean())


def test_n4_removes_the_field(phantom, files, tmp_path):
    record = n4_antspyx(*files, tmp_path / "n4.nii.gz", n_iterations=(20, 20, 20, 20))
    corrected = nib.load(tmp_path / "n4.nii.gz")
    values = corrected.get_fdata()
    white = phantom["white"]
    before, after = variation(phantom["image"][white]), variation(values[white])
    assert before > 0.12
    assert after < 0.4 * before
    estimated = phantom["image"][white] / values[white]
    assert np.corrcoef(np.log(estimated), np.log(phantom["field"][white]))[0, 1] > 0.95

    raw = nib.load(files[0])
    assert corrected.shape == raw.shape
    np.testing.assert_array_equal(corrected.affine, raw.affine)
    np.testing.assert_allclose(corrected.get_qform(), corrected.get_sform(), atol=1e-4)
    assert corrected.get_data_dtype() == np.float32

    assert record["Tool"] == "N4 (antspyx)"
    assert "N4BiasFieldCorrection" not in str(record)
    assert record["Settings"]["shrink_factor"] == 4
    assert record["Settings"]["n_iterations"] == [20, 20, 20, 20]
    assert record["Version"]


def test_n4_gives_the_same_bytes_twice(files, tmp_path):
    outs = [tmp_path / "one.nii", tmp_path / "two.nii"]
    for out in outs:
        n4_antspyx(*files, out, n_iterations=(5, 5))
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_negative_values_do_no_harm(phantom, save, files, tmp_path):
    image = phantom["image"].copy()
    image[:2] = -30.0
    path = save(image, nib.load(files[0]).affine, "negative.nii.gz")
    n4_antspyx(path, files[1], tmp_path / "n4.nii", n_iterations=(5, 5))
    values = nib.load(tmp_path / "n4.nii").get_fdata()
    assert np.isfinite(values).all()
    assert values[phantom["brain"]].min() > 0


def test_masked(phantom, files, tmp_path):
    out = masked(*files, tmp_path / "brain.nii.gz")
    image = nib.load(out)
    expected = np.where(phantom["brain"], phantom["image"], 0)
    np.testing.assert_array_equal(np.asarray(image.dataobj), expected)
    np.testing.assert_array_equal(image.affine, nib.load(files[1]).affine)


def test_masked_refuses_another_grid(save, tmp_path):
    image = save(np.ones((5, 5, 5), np.float32), name="image.nii")
    mask = save(np.ones((5, 5, 6), np.uint8), name="mask.nii")
    with pytest.raises(BadInputError, match="shape"):
        masked(image, mask, tmp_path / "out.nii")
