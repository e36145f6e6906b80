"""N4 on a phantom whose field is known."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msnmo_bids.errors import BadInputError
from msnmo_bids.preprocessing.bias import apply_field, n4_antspyx, shrink

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


def corrected(image: Path, mask: Path, folder: Path, *iterations: int) -> np.ndarray:
    coarse, inside, field = (folder / f"{name}.nii" for name in ("coarse", "inside", "field"))
    shrink(image, mask, coarse, inside, grid_mm=8.0)
    n4_antspyx(coarse, inside, field, n_iterations=iterations)
    return nib.load(apply_field(image, mask, field, folder / "n4.nii")).get_fdata()


def test_n4_removes_the_field(phantom, files, tmp_path):
    values = corrected(*files, tmp_path, 10, 10, 10)
    white = phantom["white"]
    before, after = variation(phantom["image"][white]), variation(values[white])
    assert before > 0.12
    assert after < 0.4 * before
    estimated = phantom["image"][white] / values[white]
    assert np.corrcoef(np.log(estimated), np.log(phantom["field"][white]))[0, 1] > 0.95
    assert not values[~phantom["brain"]].any()

    raw, written = nib.load(files[0]), nib.load(tmp_path / "n4.nii")
    np.testing.assert_array_equal(written.affine, raw.affine)
    np.testing.assert_allclose(written.get_qform(), written.get_sform(), atol=1e-4)
    assert written.get_data_dtype() == np.float32


def test_n4_gives_the_same_bytes_twice(files, tmp_path):
    one, two = (corrected(*files, tmp_path, 5, 5) for _ in range(2))
    assert one.tobytes() == two.tobytes()


def test_a_finer_matrix_has_the_same_coarse_grid_and_field(phantom, files, save, tmp_path):
    """Each voxel becomes eight: N4 has no more to do, and the field is the same."""
    plain = corrected(*files, tmp_path, 5, 5)
    affine = nib.load(files[0]).affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    affine[:3, 3] = nib.affines.apply_affine(nib.load(files[0]).affine, [-0.25] * 3)
    fine = [np.kron(nib.load(file).get_fdata(), np.ones((2, 2, 2))) for file in files]
    (tmp_path / "fine").mkdir()
    finer = corrected(
        save(fine[0].astype(np.float32), affine, "fine.nii"),
        save(fine[1].astype(np.uint8), affine, "fine_mask.nii"),
        tmp_path / "fine",
        5,
        5,
    )
    shapes = [nib.load(folder / "coarse.nii").shape for folder in (tmp_path, tmp_path / "fine")]
    assert shapes[0] == shapes[1] == (20, 22, 18)
    brain = phantom["brain"]
    ratio = finer[::2, ::2, ::2][brain] / plain[brain]
    assert np.abs(ratio / np.median(ratio) - 1).max() < 0.01


@pytest.mark.parametrize("zooms", [(0.5, 0.5, 0.5), (1.0, 1.0, 1.0), (0.9, 0.9, 6.0)])
def test_an_interpolated_field_is_the_field(save, tmp_path, zooms):
    """A smooth field sampled on the coarse grid comes back on the image's grid."""
    shape = tuple(int(80 / zoom) for zoom in zooms)
    affine = np.diag([*zooms, 1.0])
    affine[:3, 3] = (-40, 7, 3)
    x, y, z = (np.arange(n) * zoom / 80 - 0.5 for n, zoom in zip(shape, zooms, strict=True))
    logarithm = 0.4 * np.sin(3 * x)[:, None, None] - 0.5 * (y[:, None] * z)[None]
    image = save(np.exp(logarithm).astype(np.float32), affine, "flair.nii")
    mask = save(np.ones(shape, np.uint8), affine, "mask.nii")
    shrink(image, mask, tmp_path / "coarse.nii", tmp_path / "inside.nii")
    out = apply_field(image, mask, tmp_path / "coarse.nii", tmp_path / "out.nii")
    np.testing.assert_allclose(nib.load(out).get_fdata(), 1, atol=1e-3)


def test_what_is_below_zero_is_corrected_and_not_clipped(phantom, save, files, tmp_path):
    image = phantom["image"].copy()
    dark = phantom["brain"] & (np.indices(SHAPE)[0] == 20)
    image[dark] = -30.0
    path = save(image, nib.load(files[0]).affine, "negative.nii.gz")
    values = corrected(path, files[1], tmp_path, 5, 5)
    assert np.isfinite(values).all()
    assert values[dark].max() < 0 < values[phantom["brain"] & ~dark].min()


def test_without_a_field_the_brain_stays_as_it_is(phantom, files, tmp_path):
    image = nib.load(apply_field(*files, None, tmp_path / "brain.nii.gz"))
    expected = np.where(phantom["brain"], phantom["image"], 0)
    np.testing.assert_array_equal(np.asarray(image.dataobj), expected)
    np.testing.assert_array_equal(image.affine, nib.load(files[1]).affine)


def test_another_grid_is_refused(save, tmp_path):
    image = save(np.ones((5, 5, 5), np.float32), name="image.nii")
    mask = save(np.ones((5, 5, 6), np.uint8), name="mask.nii")
    with pytest.raises(BadInputError, match="shape"):
        apply_field(image, mask, None, tmp_path / "out.nii")


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_field_with_holes_is_refused(save, files, tmp_path, value):
    field = save(np.full(SHAPE, value, np.float32), nib.load(files[0]).affine, "field.nii")
    with pytest.raises(BadInputError, match="--bias-correction skip"):
        apply_field(*files, field, tmp_path / "out.nii")


def test_a_brain_without_a_positive_value_is_refused(save, files, tmp_path):
    image = save(np.full(SHAPE, -1, np.float32), nib.load(files[0]).affine, "dark.nii")
    with pytest.raises(BadInputError, match="no brain is left"):
        shrink(image, files[1], tmp_path / "coarse.nii", tmp_path / "inside.nii")
