"""Brain masks: foreground of stripped input, plausibility, deepbet's failures."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch

from msnmo_bids.errors import BadInputError
from msnmo_bids.preprocessing import skullstrip
from msnmo_bids.preprocessing.skullstrip import (
    bet_version,
    check_mask,
    foreground_mask,
    largest_component,
    looks_stripped,
)

SHAPE = (24, 28, 22)


def ball(radius: float, centre=(12, 14, 11)) -> np.ndarray:
    grid = np.indices(SHAPE).reshape(3, -1).T - centre
    return (np.linalg.norm(grid, axis=1) <= radius).reshape(SHAPE)


@pytest.mark.parametrize("background", [0.0, -1.5, 100.0])
def test_foreground_of_a_stripped_image(save, tmp_path, background):
    """A dark hole inside is brain, a speck apart is not."""
    brain = ball(8)
    rng = np.random.default_rng(0)
    image = np.where(brain, rng.uniform(200, 300, SHAPE), background).astype(np.float32)
    image[12, 14, 11] = background
    image[1, 1, 1] = image[1, 1, 2] = 250
    affine = np.diag([-3.0, 3.0, 4.0, 1.0])
    record = foreground_mask(save(image, affine), tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), brain.astype(np.uint8))
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(mask.affine, affine)
    np.testing.assert_allclose(mask.get_qform(), mask.get_sform(), atol=1e-5)
    assert record["Settings"]["background"] == background
    assert set(record) == {"Tool", "Version", "Settings"}


def test_no_foreground(save, tmp_path):
    with pytest.raises(BadInputError, match="no foreground"):
        foreground_mask(save(np.zeros(SHAPE, np.float32)), tmp_path / "mask.nii.gz")


MM = (4.0, 4.0, 4.0)
PLACE = np.stack(
    np.meshgrid(*[4.0 * (np.arange(n) - (n - 1) / 2) for n in (48, 56, 44)], indexing="ij"), -1
)


def shell(radius: float) -> np.ndarray:
    """Ellipsoid of a head's proportions, its mean radius in mm."""
    return np.linalg.norm(PLACE / (0.95, 1.15, 0.9), axis=-1) < radius


def whole_head(skull: float = 20.0, scalp: float = 120.0, air: float = 0.0) -> np.ndarray:
    brain, inner, outer = shell(68), shell(76), shell(84)
    image = np.select([shell(20), brain, inner, outer], [15, 100, skull, scalp], air)
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    return np.where(outer, image + noise, image).astype(np.float32)


BRAIN = shell(68)
STRIPPED = {
    "brain": whole_head() * BRAIN,
    "with fluid around": whole_head() * shell(71),
    "with bright rim": np.where(shell(70) & ~BRAIN, 140, whole_head() * BRAIN),
    "cropped": (whole_head() * BRAIN)[6:-6, 6:-6, 6:-6],
    "cut above the brainstem": np.where(PLACE[..., 2] > -35, whole_head() * BRAIN, 0)[..., 12:],
    "with large lesions": whole_head() * BRAIN * np.where(shell(40) & (PLACE[..., 0] > 0), 2, 1),
}
NOT_STRIPPED = {
    "air with noise": np.abs(whole_head() + np.random.default_rng(1).normal(0, 3, BRAIN.shape)),
    "air set to zero": whole_head(),
    "fat suppressed, air set to zero": whole_head(scalp=30),
    "defaced": np.where((PLACE[..., 1] > 40) & (PLACE[..., 2] < 0), 0, whole_head()),
    "brain in noise": whole_head() * BRAIN + np.random.default_rng(2).rayleigh(2, BRAIN.shape),
    "nothing": np.zeros(BRAIN.shape),
    "a small ball": np.where(shell(30), 100, 0),
    "no background": np.full(BRAIN.shape, 100.0),
}


@pytest.mark.parametrize(
    ("image", "expected"),
    [(image, True) for image in STRIPPED.values()]
    + [(image, False) for image in NOT_STRIPPED.values()],
    ids=[*STRIPPED, *NOT_STRIPPED],
)
def test_a_missing_skull_is_noticed(save, image, expected):
    assert looks_stripped(save(image.astype(np.float32), np.diag([*MM, 1.0]))) == expected


def test_largest_component_uses_26_neighbours():
    mask = np.zeros((6, 6, 6), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True  # joined by corners: 3 voxels
    mask[5, 5, 4:6] = True
    kept = largest_component(mask)
    assert kept.sum() == 3
    assert kept[1, 1, 1]
    assert not largest_component(np.zeros((3, 3, 3), bool)).any()


def volume_ml(mask: np.ndarray, zoom: float) -> float:
    return float(mask.sum()) * zoom**3 / 1000


@pytest.mark.parametrize(
    ("zoom", "flags"),
    [(6.0, ["implausible_brain_volume"]), (8.0, []), (11.0, ["implausible_brain_volume"])],
)
def test_check_mask_flags(save, zoom, flags):
    mask = ball(8)
    affine = np.diag([zoom, zoom, zoom, 1.0])
    path = save(mask.astype(np.uint8), affine)
    assert check_mask(path, path) == flags


@pytest.mark.parametrize(
    ("zoom", "text"), [(1.8, "skull stripping failed"), (14.0, "skull was not removed")]
)
def test_check_mask_refuses(save, zoom, text):
    path = save(ball(8).astype(np.uint8), np.diag([zoom, zoom, zoom, 1.0]))
    with pytest.raises(BadInputError, match=text) as caught:
        check_mask(path, path)
    assert f"{volume_ml(ball(8), zoom):.0f} ml" in str(caught.value)
    assert "--skull-strip" in str(caught.value)


def test_check_mask_of_an_empty_mask(save):
    path = save(np.zeros(SHAPE, np.uint8))
    with pytest.raises(BadInputError, match="of 0 ml"):
        check_mask(path, path)


def test_check_mask_sees_a_cut_brain(save):
    cut = ball(8, centre=(12, 14, 20))
    path = save(cut.astype(np.uint8), np.diag([8.0, 8.0, 8.0, 1.0]))
    assert check_mask(path, path) == ["partial_coverage"]


def test_check_mask_refuses_another_grid(save):
    mask = save(ball(8).astype(np.uint8), name="mask.nii")
    image = save(np.zeros((5, 5, 5), np.uint8), name="flair.nii")
    with pytest.raises(BadInputError, match="shape"):
        check_mask(mask, image)


class FakeDeepbet:
    """Stands for deepbet's networks: thresholds, or finds nothing as the real one does."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def run_model(self, data: np.ndarray) -> np.ndarray:
        self.autocast = torch.is_autocast_enabled("cpu")
        if self.error:
            raise self.error
        return (data > 100).astype(np.float32)

    def postprocess(self, mask: np.ndarray) -> np.ndarray:
        return mask.astype(np.float32)


def test_deepbet_mask_is_written_on_the_grid(save, tmp_path, monkeypatch):
    monkeypatch.setattr(skullstrip, "_deepbet", FakeDeepbet)
    image = save((200.0 * ball(6)).astype(np.float32), np.diag([5.0, 6.0, 7.0, 1.0]))
    record = skullstrip.deepbet_mask(image, tmp_path / "mask.nii.gz")
    mask = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), ball(6))
    np.testing.assert_array_equal(mask.affine, nib.load(image).affine)
    assert record["Tool"] == "deepbet"


@pytest.mark.parametrize(("precision", "expected"), [("bf16", True), ("fp32", False)])
def test_deepbet_computes_in_the_precision_asked_for(
    save, tmp_path, monkeypatch, precision, expected
):
    network = FakeDeepbet()
    monkeypatch.setattr(skullstrip, "_deepbet", lambda: network)
    image = save((200.0 * ball(6)).astype(np.float32), np.eye(4))
    record = skullstrip.deepbet_mask(image, tmp_path / "mask.nii.gz", precision=precision)
    assert network.autocast is expected
    assert record["Settings"]["precision"] == precision


@pytest.mark.parametrize("error", [AssertionError(), ValueError("zero-size array")])
def test_deepbet_without_a_brain(save, tmp_path, monkeypatch, error):
    monkeypatch.setattr(skullstrip, "_deepbet", lambda: FakeDeepbet(error))
    image = save(np.ones(SHAPE, np.float32))
    with pytest.raises(BadInputError, match="deepbet finds no brain"):
        skullstrip.deepbet_mask(image, tmp_path / "mask.nii.gz")


def test_bet_version(tmp_path, monkeypatch):
    monkeypatch.setenv("FSLDIR", str(tmp_path))
    assert bet_version() == "unknown"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "fslversion").write_text("6.0.7.4:abc\n")
    assert bet_version() == "6.0.7.4"
