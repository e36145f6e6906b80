"""Whatever an export did to the intensities, the background is 0 and the contrast is the same."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msnmo_bids.preprocessing.bias import apply_field, n4_antspyx, shrink
from msnmo_bids.preprocessing.geometry import conform
from msnmo_bids.preprocessing.intensities import Intensities, background_to_zero
from msnmo_bids.preprocessing.skullstrip import foreground_mask, looks_stripped

SHAPE = (24, 28, 22)
RADIUS = np.linalg.norm(
    (np.indices(SHAPE).reshape(3, -1).T - (11.5, 13.5, 10.5)) / (9.5, 11.5, 9.0), axis=1
).reshape(SHAPE)
BRAIN = RADIUS < 0.75


def head(air: float = 0.0, seed: int = 0) -> np.ndarray:
    """Scalp, dark skull and brain with a ventricle; Rician air of a given s.d."""
    tissue = np.select([RADIUS < 0.2, BRAIN, RADIUS < 0.85, RADIUS < 1], [15, 100, 20, 80], 0)
    noise = np.random.default_rng(seed).normal(0, max(air, 1e-9), (2, *SHAPE))
    return np.hypot(tissue + noise[0], noise[1]).astype(np.float32) * (1 if air else tissue > 0)


def stripped(air: float = 0.0) -> np.ndarray:
    return np.where(BRAIN, head(air or 1.0), 0).astype(np.float32)


@given(
    gain=st.floats(1e-3, 1e4),
    offset=st.floats(-5, 5),
    air=st.sampled_from([0.0, 0.5, 2.0, 4.0]),
    image=st.sampled_from([head, stripped]),
)
def test_gain_and_offset_change_nothing(gain, offset, air, image):
    """Offsets are in units of white matter, so that the head may be negative as a whole."""
    plain = image(air)
    expected, _ = background_to_zero(plain)
    exported = (gain * (plain + 100 * offset)).astype(np.float32)
    mended, found = background_to_zero(exported)
    assert np.isfinite(mended).all()
    np.testing.assert_allclose(mended / gain, expected, atol=8)  # % of white matter
    # Only a constant was taken off: no value was clipped, and no contrast lost.
    np.testing.assert_allclose(mended, exported - np.float32(found.zero), atol=1e-4 * gain)
    assert (found.zero != 0) == ("intensities_shifted" in found.flags)
    if abs(offset) > 0.12:
        assert found.flags == ["intensities_shifted"]


@given(air=st.floats(0, 5), seed=st.integers(0, 9))
def test_a_good_image_stays_as_it_is(air, seed):
    plain = head(air, seed)
    mended, found = background_to_zero(plain)
    assert mended is plain
    assert found == Intensities()


@pytest.mark.parametrize("outside", [0.0, np.nan])
def test_little_contrast_is_no_offset(outside):
    flat = np.where(BRAIN, 200 + RADIUS * 100, outside).astype(np.float32)
    mended, found = background_to_zero(flat)
    assert found.zero == 0
    np.testing.assert_array_equal(mended[BRAIN], flat[BRAIN])


def test_an_image_that_was_z_scored_within_its_brain():
    """The background lies in the middle of the brain's values."""
    plain = stripped()
    inside = plain[BRAIN]
    scored = np.where(BRAIN, (plain - inside.mean()) / inside.std(), 0).astype(np.float32)
    mended, found = background_to_zero(scored)
    assert not mended[~BRAIN].any()
    assert (mended[BRAIN] > 0).mean() > 0.98
    np.testing.assert_allclose(mended[BRAIN] * inside.std(), inside, atol=16)  # the ventricle: 15
    assert found.flags == ["intensities_shifted"]


@pytest.mark.parametrize("padding", [-2000.0, -32768.0])
def test_padding_around_noisy_air_is_background(padding):
    plain = head(3.0)
    padded = plain.copy()
    padded[:3] = padded[-3:] = padded[:, :3] = padded[:, -3:] = padding
    mended, found = background_to_zero(padded)
    seen = padded != padding
    assert not mended[~seen].any()
    np.testing.assert_allclose(mended[seen], plain[seen], atol=3)
    assert found.flags == ([] if found.zero == 0 else ["intensities_shifted"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [RADIUS > 1, RADIUS > 0.99, ~BRAIN])
def test_what_is_not_finite_outside_of_the_head_is_background(value, where):
    plain = np.where(where, 0, head()).astype(np.float32)
    exported = np.where(where, np.float32(value), plain)
    mended, found = background_to_zero(exported)
    np.testing.assert_array_equal(mended, plain)
    assert found.n_not_finite == np.count_nonzero(where)
    assert found.flags == ["nan_outside_head"]


def test_nan_where_the_image_was_zero_and_z_scored():
    """Specks in the dark of the air count as air, as do holes of dark bone."""
    plain = head(2.0)
    plain[plain < 1] = 0
    exported = np.where(plain == 0, np.nan, (plain - 70) / 30).astype(np.float32)
    mended, found = background_to_zero(exported)
    np.testing.assert_allclose(30 * mended, plain, atol=2)
    assert found.flags == ["intensities_shifted", "nan_outside_head"]


def hole(image: np.ndarray, *box: slice) -> np.ndarray:
    image = image.copy()
    image[box] = np.nan
    return image


@pytest.mark.parametrize(
    ("box", "voxel_ml", "count"),
    [
        ((12, 20, 10), 0.001, 1),
        ((slice(10, 13), slice(17, 20), slice(9, 11)), 0.001, 18),
        ((slice(11, 13), slice(13, 15), slice(10, 12)), 1.0, 8),  # in the dark ventricle, but large
        ((slice(None), slice(None), 9), 0.001, SHAPE[0] * SHAPE[1]),  # a slice that is missing
    ],
)
def test_nan_within_the_head_is_an_error(box, voxel_ml, count):
    with pytest.raises(ValueError, match=f"^{count} of {head().size} voxels .* within the head"):
        background_to_zero(hole(head(), *np.index_exp[box]), voxel_ml)


def test_slices_without_values_at_the_end_are_outside():
    mended, found = background_to_zero(hole(head(), slice(None), slice(None), slice(19, None)))
    assert not mended[..., 19:].any()
    assert found.flags == ["nan_outside_head"]


@pytest.mark.parametrize("value", [6e2, 6.5e4, 1e30, -6e2, -3.2e4])
@pytest.mark.parametrize("gain", [1.0, 1e-3])
def test_a_few_hot_voxels_are_replaced_by_their_neighbours(value, gain):
    plain = (gain * head(2.0)).astype(np.float32)
    exported = plain.copy()
    places = [(12, 20, 10), (12, 20, 11), (6, 13, 10), (0, 0, 0)]
    for place in places:
        exported[place] = gain * value
    mended, found = background_to_zero(exported)
    changed = np.argwhere(mended != plain)
    assert {tuple(place) for place in changed.tolist()} <= set(places)
    np.testing.assert_allclose(mended, plain, atol=12 * gain)
    assert found.n_hot == len(places)
    assert found.flags == ["hot_voxels"]


def exports() -> dict[str, np.ndarray]:
    """One image as it may come, none of which is to change anything."""
    plain = stripped()
    brain = plain > 0
    scored = np.where(brain, plain, 0) / 31 - 3
    hot = plain.copy()
    hot[12, 20, 10] = 3e4
    return {
        "plain": plain,
        "z-scored": scored.astype(np.float32),
        "shifted": plain + np.float32(1000),
        "negative as a whole": plain - np.float32(5000),
        "NaN around": np.where(brain, plain, np.nan).astype(np.float32),
        "hot": hot,
    }


@pytest.fixture(scope="module")
def processed(tmp_path_factory) -> dict[str, tuple[list[str], bool, np.ndarray]]:
    """Each export after conforming, skull stripping and bias correction, in units of its median."""
    results = {}
    for name, data in exports().items():
        folder = tmp_path_factory.mktemp("export")
        ras, mask, coarse, inside, field, out = (folder / f"{part}.nii" for part in range(6))
        nib.save(nib.Nifti1Image(data, np.diag([9.0, 9.0, 9.0, 1.0])), folder / "raw.nii")
        flags = conform(folder / "raw.nii", ras)["flags"]
        foreground_mask(ras, mask)
        shrink(ras, mask, coarse, inside)
        n4_antspyx(coarse, inside, field, n_iterations=(10, 10))
        values = nib.load(apply_field(ras, mask, field, out)).get_fdata()
        results[name] = (flags, looks_stripped(ras), values / np.median(values[values != 0]))
    return results


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("z-scored", "intensities_shifted"),
        ("shifted", "intensities_shifted"),
        ("negative as a whole", "intensities_shifted"),
        ("NaN around", "nan_outside_head"),
        ("hot", "hot_voxels"),
    ],
)
def test_skull_stripping_and_n4_see_the_same(processed, name, flag):
    plain_flags, is_stripped, plain = processed["plain"]
    flags, also_stripped, values = processed[name]
    assert is_stripped
    assert also_stripped
    assert set(flags) - set(plain_flags) == {flag}
    np.testing.assert_array_equal(values != 0, plain != 0)
    np.testing.assert_allclose(values, plain, atol=0.02)
