"""Crops: what moves together stays together, the background stays 0, a seed gives one crop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from dev.brains import Brain, make_brain, read_brain, write_brain
from dev.crops import CropSettings, CropSource

SIDE = 32
PLAIN = CropSettings(
    side=SIDE, simulated=0, on_lesion=1, emptied=0, carried=0, added=0, faded=0, leaked=0, thick=0,
    blurred=0, sharpened=0, contrast=0, noise=0, bias=0,
)  # fmt: skip
ALL = CropSettings(
    side=SIDE, simulated=0.5, emptied=0.3, carried=1, added=0.5, faded=1, leaked=1, thick=1,
    blurred=1, sharpened=1, contrast=1, noise=1, bias=1,
)  # fmt: skip


def brain(lesion: tuple[slice, ...], *, level: float = 3.0, contrast: bool = False) -> Brain:
    """Return a ball of tissue with one bright lesion."""
    inside = np.linalg.norm(np.indices((40, 40, 40)) - 19.5, axis=0) < 17
    lesions = np.zeros(inside.shape, bool)
    lesions[lesion] = True
    image = np.where(inside, 0.1, 0.0)
    image[lesions] = level
    return make_brain(image, lesions, np.where(lesions, level - 0.1, 0.0) if contrast else None)


LEFT = brain((slice(10, 14), slice(18, 23), slice(18, 22)))
RIGHT = brain((slice(24, 29), slice(18, 23), slice(18, 22)))
SIMULATED = brain((slice(17, 22), slice(12, 16), slice(18, 22)), contrast=True)


def test_lesions_of_a_plain_crop_are_where_the_image_is_bright() -> None:
    source = CropSource([[LEFT]], [], PLAIN)
    for seed in range(8):
        sample = source.draw(np.random.default_rng(seed))
        assert sample.image.shape == sample.lesions.shape == (SIDE,) * 3
        assert sample.lesions.any()
        np.testing.assert_array_equal(sample.lesions > 0, sample.image > 1.55)


def test_lesions_of_the_lower_half_are_drawn_more_often() -> None:
    lesions = np.zeros((40, 40, 40), bool)
    lesions[18:21, 18:21, 5:8] = lesions[18:21, 18:21, 32:35] = True
    image = np.where(np.linalg.norm(np.indices(lesions.shape) - 19.5, axis=0) < 17, 0.1, 0.0)
    image[:, :, 5:8][lesions[:, :, 5:8]], image[:, :, 32:35][lesions[:, :, 32:35]] = 3.0, 2.0
    source = CropSource([[make_brain(image, lesions)]], [], replace(PLAIN, side=12, lower=4.0))
    brightest = [source.draw(np.random.default_rng(seed)).image.max() for seed in range(200)]
    low, high = (np.sum(np.abs(np.subtract(brightest, level)) < 0.3) for level in (3.0, 2.0))
    assert 2.5 < low / high < 6.5


@pytest.mark.parametrize(("people", "simulated"), [([[LEFT]], []), ([], [SIMULATED])])
def test_an_emptied_crop_shows_the_same_tissue_without_lesions(people, simulated) -> None:
    settings = replace(PLAIN, simulated=1.0 - len(people), mirrored=0)
    with_lesions, empty = (
        CropSource(people, simulated, replace(settings, emptied=share)) for share in (0, 1)
    )
    for seed in range(8):
        before, after = (s.draw(np.random.default_rng(seed)) for s in (with_lesions, empty))
        assert before.lesions.any()
        assert not after.lesions.any()
        assert after.image.max() < 0.7 < before.image.max()
        np.testing.assert_array_equal(after.image != 0, before.image != 0)


def test_what_stripping_leaves_in_is_a_bright_rim_of_the_brain() -> None:
    plain, leaking = (replace(PLAIN, leaked=share) for share in (0, 1))
    added = 0
    for seed in range(8):
        without, with_rim = (
            CropSource([[LEFT]], [], settings).draw(np.random.default_rng(seed))
            for settings in (plain, leaking)
        )
        rim = (with_rim.image != 0) & (without.image == 0)
        depth = ndimage.distance_transform_edt(without.image == 0)
        assert not rim.any() or depth[rim].max() < 8
        assert not with_rim.lesions[rim].any()
        added += rim.sum()
    assert added > 100


@given(st.integers(0, 2**32 - 1))
def test_every_change_keeps_numbers_finite_and_lesions_in_the_brain(seed: int) -> None:
    source = CropSource([[LEFT], [RIGHT]], [SIMULATED], ALL)
    sample = source.draw(np.random.default_rng(seed))
    assert np.isfinite(sample.image).all()
    assert set(np.unique(sample.lesions)) <= {0, 1}
    assert not sample.lesions[sample.image == 0].any()


def test_the_same_numbers_give_the_same_crop() -> None:
    first, second = (
        CropSource([[LEFT], [RIGHT]], [SIMULATED], ALL).draw(np.random.default_rng(3))
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.lesions, second.lesions)


def test_background_stays_zero_where_nothing_leaks() -> None:
    settings = replace(ALL, simulated=0.0, added=0.0, leaked=0.0, thick=0.0, on_lesion=0.0)
    plain = replace(PLAIN, on_lesion=0.0)
    for seed in range(6):
        image = CropSource([[LEFT]], [], settings).draw(np.random.default_rng(seed)).image
        still = CropSource([[LEFT]], [], plain).draw(np.random.default_rng(seed)).image
        np.testing.assert_array_equal(image == 0, still == 0)


def test_lesions_of_another_person_come_to_their_own_place() -> None:
    carrying = CropSource([[LEFT], [RIGHT]], [], replace(PLAIN, carried=1.0, on_lesion=0.0))
    own = CropSource([[LEFT]], [], replace(PLAIN, on_lesion=0.0))
    most = max(
        ndimage.label(carrying.draw(np.random.default_rng(seed)).lesions)[1] for seed in range(12)
    )
    alone = max(ndimage.label(own.draw(np.random.default_rng(s)).lesions)[1] for s in range(12))
    assert (most, alone) == (2, 1)


def test_simulated_lesions_get_the_contrasts_of_real_ones() -> None:
    source = CropSource([], [SIMULATED], PLAIN)
    levels = []
    for seed in range(40):
        sample = source.draw(np.random.default_rng(seed))
        levels.append(np.median(sample.image[sample.lesions > 0]))
    assert min(levels) < 1.2
    assert max(levels) > 2.2


def test_what_leaks_is_no_lesion_and_lies_outside_of_the_brain() -> None:
    plain, leaking = (
        CropSource([[LEFT]], [], replace(PLAIN, leaked=share)) for share in (0.0, 1.0)
    )
    grown = 0
    for seed in range(8):
        before, after = (source.draw(np.random.default_rng(seed)) for source in (plain, leaking))
        np.testing.assert_array_equal(after.lesions, before.lesions)
        np.testing.assert_array_equal(
            after.image[before.image != 0], before.image[before.image != 0]
        )
        grown += int((after.image != 0).sum() - (before.image != 0).sum())
    assert grown > 0


def test_a_source_without_brains_is_refused_when_it_is_drawn_from() -> None:
    with pytest.raises(ValueError, match="high"):
        CropSource([], [], PLAIN).draw(np.random.default_rng(0))


def test_a_brain_survives_its_file(tmp_path) -> None:
    file = tmp_path / "00001.npz"
    write_brain(file, SIMULATED)
    again = read_brain(file)
    for name, value in vars(SIMULATED).items():
        np.testing.assert_array_equal(getattr(again, name), value)
        assert getattr(again, name).dtype == value.dtype
    assert isinstance(again.image, np.memmap)


def test_each_lesion_has_a_voxel_of_its_own() -> None:
    assert LEFT.sizes.tolist() == [80]
    assert LEFT.lesions[tuple(LEFT.centres[0])] == 1
    empty = make_brain(np.ones((4, 4, 4)), np.zeros((4, 4, 4)))
    assert empty.centres.shape == (0, 3)
