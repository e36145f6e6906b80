"""What is known of each finding of a network."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from msnmo_bids.lesions.regions import ATLAS_MAPS, load_atlas
from msnmo_bids.model.findings import FEATURES, TISSUES, believed, describe_findings, tissues_at

_MAPS = arrays(np.float32, (5, 6, 7), elements=st.floats(0, 1, width=32))
_IMAGES = arrays(np.float32, (5, 6, 7), elements=st.floats(-3, 6, width=32))


def _column(features: np.ndarray, name: str) -> np.ndarray:
    return features[:, FEATURES.index(name)]


@given(first=_MAPS, second=_MAPS, image=_IMAGES)
def test_each_finding_is_described_by_its_own_voxels(first, second, image):
    labels, features = describe_findings(first, second, image, 0.6)
    expected, count = ndimage.label(first > 0.6, np.ones((3, 3, 3)))
    np.testing.assert_array_equal(labels, expected)
    assert features.shape == (count, len(FEATURES))
    assert np.isfinite(features[:, : -len(TISSUES)]).all()
    assert np.isnan(features[:, -len(TISSUES) :]).all()  # too small for any brain
    for number in range(1, count + 1):
        inside = labels == number
        row = dict(zip(FEATURES, features[number - 1], strict=True))
        assert np.exp(row["size"]) == pytest.approx(inside.sum())
        assert row["share_above_0.9"] == pytest.approx(np.mean(second[inside] > 0.9))
        clipped = np.clip(second[inside].mean(dtype=float), 0.01, 0.99)
        assert row["second"] == pytest.approx(np.log(clipped / (1 - clipped)), abs=1e-4)


def _head() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A brain of grey tissue (z-score 0.5), and one finding that stands out by 2."""
    image = np.zeros((40, 40, 40), np.float32)
    image[2:-2, 2:-2, 2:-2] = 0.5
    first = np.zeros_like(image)
    first[10:14, 10:14, 10:14] = 0.9
    image[first > 0] = 2.5
    return image, first, first.copy()


def test_contrast_is_to_the_tissue_around_and_not_to_fluid_or_other_findings():
    image, first, second = _head()
    _, features = describe_findings(first, second, image, 0.6)
    assert _column(features, "contrast")[0] == pytest.approx(2.0, abs=0.01)
    image[18:21, 10:14, 10:14] = -4.0  # fluid
    first[10:14, 18:22, 10:14] = 0.9
    image[10:14, 18:22, 10:14] = 1.5
    _, features = describe_findings(first, second, image, 0.6)
    np.testing.assert_allclose(_column(features, "contrast"), [2.0, 1.0], atol=0.01)


def test_what_is_as_bright_as_bright_lesions_counts_alike():
    image, first, second = _head()
    image[first > 0] = 9.0
    _, features = describe_findings(first, second, image, 0.6)
    assert _column(features, "contrast")[0] == 2.5


def test_a_finding_is_believed_if_the_second_network_finds_it_likelier_than_not():
    image, first, second = _head()
    for probability, expected in ((0.49, False), (0.51, True)):
        _, features = describe_findings(first, probability * (second > 0), image, 0.6)
        assert believed(features).tolist() == [expected]


def test_load_elsewhere_counts_as_far_as_the_second_network_believes_it():
    image, first, second = _head()
    _, alone = describe_findings(first, second, image, 0.6)
    assert np.exp(_column(alone, "elsewhere")) == pytest.approx(10)
    first[24:30, 24:30, 24:30] = 0.8
    second[24:30, 24:30, 24:30] = 0.5
    _, features = describe_findings(first, second, image, 0.6)
    np.testing.assert_allclose(np.exp(_column(features, "elsewhere")), [10 + 108, 10 + 57.6], 1e-4)


def test_nothing_found_is_no_row_and_shapes_must_agree():
    image, first, second = _head()
    labels, features = describe_findings(0 * first, second, image, 0.6)
    assert features.shape == (0, len(FEATURES))
    assert not labels.any()
    with pytest.raises(ValueError, match="shapes differ"):
        describe_findings(first, second[1:], image, 0.6)


@pytest.fixture(scope="module")
def mean_head() -> tuple[np.ndarray, np.ndarray]:
    """The brain of the atlas as a network sees one, z-scored in 64³, and its index to MNI mm."""
    _, flair, affine = load_atlas()
    box = ndimage.find_objects((flair > 0).astype(np.uint8))[0]
    inside = flair[box]
    cube = ndimage.zoom(
        inside, 64 / np.array(inside.shape), order=1, grid_mode=True, mode="nearest"
    )
    brain = cube > 0.05
    image = np.where(brain, (cube - cube[brain].mean()) / cube[brain].std(), 0)
    scale = np.array(inside.shape) / 64
    to_mni = affine @ nib.affines.from_matvec(
        np.diag(scale), [part.start for part in box] + scale / 2 - 0.5
    )
    return image.astype(np.float32), to_mni


@pytest.mark.parametrize("tissue", TISSUES)
def test_the_atlas_says_what_a_finding_lies_in(mean_head, tissue):
    image, to_mni = mean_head
    maps, _, affine = load_atlas()
    there = ndimage.uniform_filter(maps[ATLAS_MAPS.index(tissue)], 5)
    place = nib.affines.apply_affine(affine, np.unravel_index(there.argmax(), there.shape))
    voxel = np.rint(nib.affines.apply_affine(np.linalg.inv(to_mni), place)).astype(int)
    first = np.zeros_like(image)
    first[tuple(slice(i - 1, i + 2) for i in voxel)] = 0.9
    _, features = describe_findings(first, first, image, 0.6)
    found = dict(zip(FEATURES, features[0], strict=True))
    assert found[tissue] == max(found[name] for name in TISSUES) > 0.5


def test_an_atlas_that_does_not_fit_says_nothing(mean_head, monkeypatch):
    image, _ = mean_head
    places = np.argwhere(image != 0)[::500]
    assert np.isfinite(tissues_at(image, places)).all()
    assert np.isnan(tissues_at(0 * image, places)).all()
    with monkeypatch.context() as patched:
        patched.setattr("msnmo_bids.model.findings.atlas_fits", lambda matrix, brain: False)
        assert np.isnan(tissues_at(image, places)).all()
