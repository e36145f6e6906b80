"""The cube: where its voxels lie, what they hold, and the way back."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from msnmo_bids.errors import BadInputError
from msnmo_bids.preprocessing.cube import (
    CubeTransform,
    array_to_cube,
    brain_box,
    from_cube,
    labels_to_cube,
    resize_weights,
    to_cube,
)

SHAPE = (24, 20, 28)
ISOTROPIC = (1.0, 1.0, 1.0)


def ball(shape, centre, radius, zooms=ISOTROPIC) -> np.ndarray:
    grid = np.indices(shape).reshape(3, -1).T - centre
    return (np.linalg.norm(grid * zooms, axis=1) <= radius).reshape(shape)


def ramp(shape, coefficients, offset) -> np.ndarray:
    """A linear function of the index: linear resizing keeps it."""
    return (np.tensordot(coefficients, np.indices(shape), 1) + offset).astype(np.float32)


boxes = st.tuples(*[st.tuples(st.integers(-8, 15), st.integers(4, 30))] * 3)
cube_shapes = st.tuples(*[st.integers(2, 24)] * 3)


def transform_of(box, cube_shape, source=SHAPE) -> CubeTransform:
    start = tuple(first for first, _ in box)
    stop = tuple(first + length for first, length in box)
    return CubeTransform(start, stop, source, cube_shape)


@settings(deadline=None, max_examples=50)
@given(box=boxes, cube_shape=cube_shapes)
def test_affine_maps_centres_and_corners(box, cube_shape):
    transform = transform_of(box, cube_shape)
    source = np.array([[0.0, 2, 0, 5], [-1.5, 0, 0, 7], [0, 0, 3, -9], [0, 0, 0, 1]])
    to_source = np.linalg.inv(source) @ transform.affine(source)
    corners = nib.affines.apply_affine(to_source, [[-0.5] * 3, np.array(cube_shape) - 0.5])
    np.testing.assert_allclose(corners[0], np.array(transform.start) - 0.5, atol=1e-9)
    np.testing.assert_allclose(corners[1], np.array(transform.stop) - 0.5, atol=1e-9)
    index = np.array([1, 0, 1])
    expected = transform.start + (index + 0.5) * transform.scale - 0.5
    np.testing.assert_allclose(nib.affines.apply_affine(to_source, index), expected, atol=1e-9)


@given(box=boxes, cube_shape=cube_shapes)
def test_json_round_trip(box, cube_shape):
    transform = transform_of(box, cube_shape)
    assert CubeTransform.from_json(transform.to_json()) == transform


@settings(deadline=None, max_examples=30)
@given(box=boxes, cube_shape=cube_shapes)
def test_from_cube_samples_at_the_voxel_centres(box, cube_shape):
    transform = transform_of(box, cube_shape)
    ends = zip(transform.start, transform.stop, SHAPE, strict=True)
    assume(all(stop > 0 and start < size for start, stop, size in ends))
    cube = ramp(cube_shape, (1.0, 10.0, 100.0), 3.0)
    back = from_cube(cube, transform)
    assert back.shape == SHAPE
    to_cube_index = np.linalg.inv(transform.affine(np.eye(4)))
    index = nib.affines.apply_affine(to_cube_index, np.indices(SHAPE).reshape(3, -1).T)
    clipped = index.clip(0, np.array(cube_shape) - 1)
    in_box = np.all((index > -0.5) & (index < np.array(cube_shape) - 0.5), axis=1)
    expected = np.where(in_box, clipped @ [1.0, 10.0, 100.0] + 3.0, 0.0)
    np.testing.assert_allclose(back.ravel(), expected, rtol=1e-4, atol=1e-2)


@settings(deadline=None, max_examples=30)
@given(
    zooms=st.tuples(*[st.floats(1.0, 3.0)] * 3),
    cube_shape=st.tuples(*[st.integers(24, 36)] * 3),
    margin=st.floats(0, 2),
)
def test_image_to_cube_to_image_keeps_a_ramp(zooms, cube_shape, margin):
    """In a cube finer than the image; z = 0 lies where the brain has its mean, in its centre."""
    mask = np.zeros(SHAPE, bool)
    mask[4:20, 3:17, 5:24] = True
    image = ramp(SHAPE, (3.0, -2.0, 5.0), 200.0)
    cube, transform = array_to_cube(image, mask, zooms, cube_shape, margin)
    back = from_cube(cube, transform)
    interior = np.zeros(SHAPE, bool)
    interior[8:16, 7:13, 9:20] = True
    slope, offset = np.polyfit(back[interior], image[interior], 1)
    np.testing.assert_allclose(slope * back[interior] + offset, image[interior], atol=0.05)
    centre = 200 + np.dot((3.0, -2.0, 5.0), (11.5, 9.5, 14.0))
    assert offset == pytest.approx(centre, abs=0.5)  # half a voxel of x alone would be 1.5
    assert slope == pytest.approx(image[mask].std(), rel=0.05)


@settings(deadline=None, max_examples=30)
@given(
    centre=st.tuples(st.floats(0, 23), st.floats(0, 19), st.floats(0, 27)),
    radius=st.floats(5, 14),
    cube_shape=st.tuples(*[st.integers(8, 32)] * 3),
    seed=st.integers(0, 1000),
)
def test_z_scores(centre, radius, cube_shape, seed):
    """Also for brains that the image's border cuts."""
    mask = ball(SHAPE, centre, radius)
    image = np.random.default_rng(seed).normal(500, 80, SHAPE).astype(np.float32)
    cube, transform = array_to_cube(image, mask, ISOTROPIC, cube_shape, 2.0)
    assert cube.shape == cube_shape
    assert cube.dtype == np.float32
    brain = cube != 0
    assert abs(cube[brain].mean()) < 1e-4
    assert abs(cube[brain].std() - 1) < 1e-4
    # background is exactly 0: where the mask, carried over alone, says less than half
    share = from_cube(brain.astype(np.float32), transform)
    assert share[~mask].mean() < 0.35


def test_background_is_zero_and_does_not_darken_the_rim():
    mask = ball(SHAPE, (12, 10, 14), 7)
    image = np.where(mask, 100.0, 5000.0)  # a bright skull around
    image[12:, :, :] += mask[12:] * 10.0
    cube, _ = array_to_cube(image, mask, ISOTROPIC, (32, 32, 32), 5.0)
    assert cube[0].max() == cube[:, 0].max() == cube[..., -1].max() == 0
    brain = cube[cube != 0]
    # two intensities 10 apart: z-scores near -1 and +1, and none beyond
    assert brain.min() > -1.2
    assert brain.max() < 1.2
    assert np.abs(brain).mean() > 0.8


@pytest.mark.parametrize(("margin", "voxels"), [(0.0, 0), (1.0, 1), (2.0, 1), (5.0, 3)])
def test_margin_is_rounded_up_to_voxels(margin, voxels):
    mask = np.zeros(SHAPE, bool)
    mask[5:9, 6:10, 7:11] = True
    transform = brain_box(mask, (2.0, 2.0, 2.0), (8, 8, 8), margin)
    assert transform.start == (5 - voxels, 6 - voxels, 7 - voxels)
    assert transform.stop == (9 + voxels, 10 + voxels, 11 + voxels)


def test_mask_at_the_border_keeps_its_margin():
    mask = np.ones(SHAPE, bool)
    image = ramp(SHAPE, (1.0, 1.0, 1.0), 10.0)
    cube, transform = array_to_cube(image, mask, ISOTROPIC, (34, 30, 38), 5.0)
    assert transform.start == (-5, -5, -5)
    assert transform.stop == (29, 25, 33)
    expected = np.zeros((34, 30, 38), bool)
    expected[5:-5, 5:-5, 5:-5] = True
    np.testing.assert_array_equal(cube != 0, expected & (cube != 0))
    assert (cube != 0).sum() >= expected.sum() - 200  # z = 0 exactly is rare
    np.testing.assert_allclose(
        from_cube(cube, transform) * image.std() + image.mean(), image, atol=1e-3
    )


def test_same_grid_leaves_values_as_they_are():
    """A box as large as the cube: scale 1, so only the z-score acts."""
    mask = np.zeros(SHAPE, bool)
    mask[4:12, 4:12, 4:12] = True
    image = np.random.default_rng(1).random(SHAPE).astype(np.float32)
    cube, transform = array_to_cube(image, mask, ISOTROPIC, (8, 8, 8), 0.0)
    values = image[4:12, 4:12, 4:12]
    np.testing.assert_allclose(cube, (values - values.mean()) / values.std(), atol=1e-5)
    np.testing.assert_array_equal(from_cube(cube, transform)[4:12, 4:12, 4:12], cube)


@settings(deadline=None, max_examples=30)
@given(
    cube_shape=st.tuples(*[st.integers(16, 40)] * 3),
    seed=st.integers(0, 99),
    start=st.tuples(*[st.integers(-3, 4)] * 3),
)
def test_labels_survive_an_enlarging_cube(cube_shape, seed, start):
    labels = np.random.default_rng(seed).integers(0, 4, (12, 11, 13)).astype(np.int16)
    stop = tuple(s + 14 for s in start)
    transform = CubeTransform(start, stop, labels.shape, cube_shape)
    cube = labels_to_cube(labels, transform)
    assert cube.dtype == labels.dtype
    assert cube.shape == cube_shape
    index = nib.affines.apply_affine(transform.affine(np.eye(4)), np.indices(cube_shape).T)
    inside = np.all((index > -0.5) & (index < np.array(labels.shape) - 0.5), axis=-1).T
    nearest = np.rint(index).astype(int).clip(0, np.array(labels.shape) - 1)
    expected = np.where(inside, labels[tuple(nearest.T)], 0)
    between = np.any(np.abs(index % 1 - 0.5) < 1e-6, axis=-1).T  # either neighbour is right
    np.testing.assert_array_equal(cube[~between], expected[~between])


def test_labels_and_image_stay_together():
    """A bright ball and its label keep the same centre of mass on the cube."""
    mask = ball((40, 40, 20), (20, 19, 10), 16, (1, 1, 2))
    lesion = ball((40, 40, 20), (14, 24, 8), 5, (1, 1, 2))
    image = 100.0 + 100.0 * lesion
    cube, transform = array_to_cube(image, mask, (1, 1, 2), (48, 48, 48), 5.0)
    label = labels_to_cube(lesion.astype(np.uint8), transform)
    bright = cube > (cube.max() + np.median(cube[cube != 0])) / 2
    np.testing.assert_allclose(
        np.argwhere(bright).mean(axis=0), np.argwhere(label).mean(axis=0), atol=0.3
    )
    back = from_cube(label.astype(np.float32), transform) > 0.5
    overlap = 2 * (back & lesion).sum() / (back.sum() + lesion.sum())
    assert overlap > 0.93


def test_channels_are_stacked():
    transform = CubeTransform((2, 2, 2), (10, 10, 10), SHAPE, (16, 16, 16))
    values = np.random.default_rng(0).random((2, 16, 16, 16))
    back = from_cube(values, transform)
    assert back.dtype == np.float32
    assert back.shape == (2, *SHAPE)
    np.testing.assert_array_equal(back[1], from_cube(values[1], transform))
    assert back[:, :2].max() == back[:, 10:].max() == 0


@pytest.mark.parametrize("shape", [(16, 16, 15), (16, 16)])
def test_from_cube_refuses(shape):
    transform = CubeTransform((2, 2, 2), (10, 10, 10), SHAPE, (16, 16, 16))
    with pytest.raises(ValueError, match="shape"):
        from_cube(np.zeros(shape), transform)


@given(n_in=st.integers(1, 60), n_out=st.integers(1, 60))
def test_resize_weights_keep_constants_and_ramps(n_in, n_out):
    weights = resize_weights(n_in, n_out)
    assert weights.shape == (n_out, n_in)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert weights.min() >= 0
    centres = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
    width = max(1.0, n_in / n_out)
    interior = (centres >= width) & (centres <= n_in - 1 - width)
    # a sampled triangle that is not a whole number of voxels wide is not exact on a ramp
    error = np.abs(weights @ np.arange(n_in) - centres)[interior]
    assert error.max(initial=0) < (1e-3 if n_in <= n_out else 0.13)


@pytest.mark.parametrize(
    ("image", "mask", "problem"),
    [
        (np.ones(SHAPE), np.zeros(SHAPE), "empty"),
        (np.full(SHAPE, 7.0), np.ones(SHAPE), "same intensity"),
    ],
)
def test_to_cube_refuses_with_the_file(tmp_path, image, mask, problem):
    files = [tmp_path / "flair.nii", tmp_path / "mask.nii"]
    for file, array in zip(files, (image, mask), strict=True):
        nib.save(nib.Nifti1Image(array.astype(np.float32), np.eye(4)), file)
    with pytest.raises(BadInputError, match=problem) as caught:
        to_cube(*files, shape=(8, 8, 8))
    assert str(files[0]) in str(caught.value)


def test_to_cube_refuses_another_grid(tmp_path):
    files = [tmp_path / "flair.nii", tmp_path / "mask.nii"]
    for file, shape in zip(files, (SHAPE, SHAPE[::-1]), strict=True):
        nib.save(nib.Nifti1Image(np.ones(shape, np.float32), np.eye(4)), file)
    with pytest.raises(BadInputError, match="shape"):
        to_cube(*files)


def test_to_cube_reads_files_as_the_arithmetic_does(tmp_path):
    zooms = (1.0, 1.5, 2.0)
    mask = ball(SHAPE, (12, 10, 14), 9)
    image = np.random.default_rng(3).random(SHAPE).astype(np.float32)
    files = [tmp_path / "flair.nii.gz", tmp_path / "mask.nii.gz"]
    for file, array in zip(files, (image, mask.astype(np.uint8)), strict=True):
        nib.save(nib.Nifti1Image(array, np.diag([*zooms, 1.0])), file)
    cube, transform = to_cube(*files, shape=(16, 16, 16))
    expected, same = array_to_cube(image, mask, zooms, (16, 16, 16))
    np.testing.assert_array_equal(cube, expected)
    assert transform == same
