"""Images on which nothing may be named: each has what it is named for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from dev.unsuitable import UNSUITABLE
from msnmo_bids.simulation.anatomy import Head, Tissue
from msnmo_bids.simulation.imaging import Protocol
from msnmo_bids.simulation.sample import SimulatedScan, simulate_scan

CLEAN = Protocol("clean", (1.0, 1.0, 1.0), 1.0, noise=0.01, bias=0.0)


@pytest.fixture
def scan(tiny_head: Head) -> SimulatedScan:
    """Return a healthy scan of the whole of a small head."""
    return simulate_scan(tiny_head, np.random.default_rng(3), diagnosis="HC", protocol=CLEAN)


def made(scan: SimulatedScan, kind: str) -> np.ndarray:
    return UNSUITABLE[kind](scan, np.random.default_rng(5)).image


@pytest.mark.parametrize("kind", UNSUITABLE)
def test_same_seed_same_image_on_the_same_grid(scan: SimulatedScan, kind: str) -> None:
    image = made(scan, kind)
    assert image.shape == scan.image.shape
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert image.min() >= 0
    np.testing.assert_array_equal(image, made(scan, kind))


def test_t1_weighted_has_dark_cortex(scan: SimulatedScan) -> None:
    def ratio(image: np.ndarray) -> float:
        white, cortex = (scan.tissue == kind for kind in (Tissue.WHITE_MATTER, Tissue.CORTEX))
        return float(np.median(image[cortex]) / np.median(image[white]))

    assert ratio(scan.image) > 0.98
    assert ratio(made(scan, "t1w")) < 0.9


@pytest.mark.parametrize(("kind", "least"), [("tumour", 3.0), ("infarct", 3.0)])
def test_masses_are_large_bright_and_on_one_side(
    scan: SimulatedScan, kind: str, least: float
) -> None:
    image = ndimage.gaussian_filter(made(scan, kind), 1.0)
    before = ndimage.gaussian_filter(scan.image, 1.0)
    white = np.median(before[scan.tissue == Tissue.WHITE_MATTER])
    bright = scan.brain_mask & (image > 1.35 * white)
    was = scan.brain_mask & (before > 1.35 * white)
    assert (bright.sum() - was.sum()) / 1000 > least


def test_motion_lies_beside_the_head_and_noise_everywhere(scan: SimulatedScan) -> None:
    air = ndimage.binary_erosion(scan.tissue == Tissue.AIR, iterations=3)
    assert np.percentile(made(scan, "motion")[air], 95) > 2 * np.percentile(scan.image[air], 95)
    noise = made(scan, "noise")
    inside, outside = noise[scan.brain_mask], noise[air]
    assert np.median(inside) == pytest.approx(np.median(outside), rel=0.05)
