"""The chain from a network's probability to that of the scan's mask."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from msnmo_bids.lesions.refinement import refine
from msnmo_bids.lesions.regions import DEEP, Regions, load_atlas

_THRESHOLD = 0.6


@pytest.mark.parametrize("outline", ["probability", "contrast"])
def test_outlines_as_asked_and_no_fat_and_nothing_beyond_the_brain(outline):
    """A lesion, one as bright as fat, and one that the atlas places outside of the brain."""
    maps, _, affine = load_atlas()
    brain = maps.sum(axis=0) > 0.9
    image = np.where(brain, 100.0, 0.0)
    lesion, fat, beyond = ((50, 60, 60), (30, 60, 60), (46, 55, 21))  # index: 2 mm voxels
    assert maps[(slice(None), *beyond)].sum() < 0.25
    boxes = [tuple(slice(i - 2, i + 3) for i in place) for place in (lesion, fat, beyond)]
    for box, brightness in zip(boxes, (160.0, 400.0, 150.0), strict=True):
        image[box] = brightness
    brain[boxes[2]] = True
    found = np.where(ndimage.binary_dilation((image > 100) & brain), 0.7, 0.1)
    regions = Regions(np.where(brain, np.int8(DEEP), np.int8(0)), affine)
    after = refine(
        found, image, brain, (2.0, 2.0, 2.0), regions, threshold=_THRESHOLD, outline=outline
    )
    assert [bool(after[place] > _THRESHOLD) for place in (lesion, fat, beyond)] == [
        True, False, False,
    ]  # fmt: skip
    around = tuple(slice(i - 5, i + 6) for i in lesion)
    before = found[around] > _THRESHOLD
    assert ((after[around] > _THRESHOLD).sum() < before.sum()) == (outline == "contrast")
