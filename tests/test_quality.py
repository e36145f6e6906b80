"""Quality: each fault of a made-up scan turns its own figure red."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from msnmo_bids.lesions.regions import load_atlas
from msnmo_bids.quality import (
    AMBER,
    GREEN,
    LEVELS,
    LIMITS,
    RED,
    QualityImages,
    atlas_coverage,
    atlas_fit,
    quality,
)

SHAPE, ZOOMS = (48, 56, 44), (3.0, 3.0, 3.0)
WHITE, CORTEX, FLUID = 100.0, 108.0, 35.0


@pytest.fixture(scope="module")
def scan() -> QualityImages:
    """A brain of three tissues in air with noise, 3 mm."""
    rng = np.random.default_rng(0)
    place = (np.indices(SHAPE) - (np.array(SHAPE) - 1).reshape(3, 1, 1, 1) / 2) * 3.0
    away = np.sqrt(sum((place[k] / r) ** 2 for k, r in enumerate((62, 76, 58))))
    brain, ventricle = away < 1, away < 0.42
    cortex = brain & (away > 0.88)
    white = brain & ~cortex & ~ventricle
    values = np.select([ventricle, cortex, white, away < 1.12], [FLUID, CORTEX, WHITE, 60.0], 0.0)
    values = ndimage.gaussian_filter(values, 0.4)
    values = np.abs(values + rng.normal(0, 2, SHAPE)).astype(np.float32)
    return QualityImages(
        raw=values,
        corrected=np.where(brain, values, 0).astype(np.float32),
        brain=brain,
        zooms=ZOOMS,
        ventricle=ventricle.astype(np.float32),
        cortex=cortex.astype(np.float32),
        white=white.astype(np.float32),
        across=place[0],
        coverage=1.0,
        atlas_fit=0.7,
    )


def changed(scan: QualityImages, change: Callable[[np.ndarray], np.ndarray]) -> QualityImages:
    """Change the image before and after the bias correction alike."""
    return replace(scan, raw=change(scan.raw.copy()), corrected=change(scan.corrected.copy()))


def levels(scan: QualityImages) -> dict[str, str | None]:
    return {name: figure["Level"] for name, figure in quality(scan)["Figures"].items()}


def test_a_sound_scan_has_nothing_red(scan):
    found = quality(scan)
    assert RED not in levels(scan).values()
    assert found["Level"] != RED
    assert found["Reasons"] == []
    assert found["Contrast"] == "FLAIR"
    assert set(found["Figures"]) == {limit.name for limit in LIMITS}


def _t1w(scan):
    cortex = scan.cortex > 0
    return changed(scan, lambda image: np.where(cortex, 0.75 * image, image))


def _t2w(scan):
    ventricle = scan.ventricle > 0
    return changed(scan, lambda image: np.where(ventricle, 200, image))


def _isointense(scan):
    ventricle = scan.ventricle > 0
    return changed(scan, lambda image: np.where(ventricle, 95, image))


def _mass(scan):
    right = np.sqrt(sum((np.indices(SHAPE)[k] - c) ** 2 for k, c in enumerate((35, 28, 22)))) < 8
    return changed(scan, lambda image: np.where(right & scan.brain, 160, image))


def _flattened(scan):
    """Return a mass that the bias correction took for a field."""
    away = sum((np.indices(SHAPE)[k] - c) ** 2 for k, c in enumerate((35, 28, 22)))
    return replace(scan, raw=scan.raw * (1 + 1.5 * np.exp(-away / 40)).astype(np.float32))


def _cavity(scan):
    right = np.sqrt(sum((np.indices(SHAPE)[k] - c) ** 2 for k, c in enumerate((35, 28, 22)))) < 8
    return changed(scan, lambda image: np.where(right & scan.brain, 30, image))


def _noisy(scan):
    noise = np.random.default_rng(1).normal(0, 30, SHAPE)
    return changed(scan, lambda image: np.abs(image + noise))


def _cut(scan):
    cut = {
        name: getattr(scan, name)[:, :, :30]
        for name in ("raw", "corrected", "brain", "ventricle", "cortex", "white", "across")
    }
    return replace(scan, **cut)


def _pieces(scan):
    brain = scan.brain.copy()
    brain[22:26] = False
    return replace(scan, brain=brain)


@pytest.mark.parametrize(
    ("fault", "figure", "looks"),
    [
        (_t1w, "GreyToWhite", "T1w"),
        (_t2w, "BrightFluid", "T2w"),
        (_isointense, "FluidToWhite", "unknown"),
        (_mass, "OneSidedBright", "FLAIR"),
        (_flattened, "BiasFieldDetail", "FLAIR"),
        (_cavity, "OneSidedDark", "FLAIR"),
        (_noisy, "Noise", None),
        (_noisy, "Ghost", None),
        (_cut, "CutArea", "FLAIR"),
        (_pieces, "LoosePieces", "FLAIR"),
        (lambda scan: replace(scan, coverage=0.8), "Coverage", "FLAIR"),
        (lambda scan: replace(scan, atlas_fit=0.1), "AtlasFit", "FLAIR"),
        (lambda scan: replace(scan, zooms=(1.0, 1.0, 12.0)), "SliceThickness", None),
    ],
)
def test_each_fault_is_red_with_its_reason(scan, fault, figure, looks):
    assert levels(scan)[figure] != RED
    found = quality(fault(scan))
    assert found["Figures"][figure]["Level"] == RED
    assert found["Level"] == RED
    assert next(limit.reason for limit in LIMITS if limit.name == figure) in found["Reasons"]
    assert looks is None or found["Contrast"] == looks


def test_a_coils_smooth_field_is_no_detail(scan):
    x, y, z = (np.linspace(-1, 1, n) for n in SHAPE)
    field = np.exp(0.4 * x[:, None, None] + 0.3 * (y**2)[None, :, None] - 0.2 * (z**3)[None, None])
    shaded = replace(scan, raw=(scan.raw * field).astype(np.float32))
    assert quality(shaded)["Figures"]["BiasFieldDetail"]["Level"] == GREEN


def test_what_cannot_be_measured_counts_for_nothing(scan):
    no_air = changed(scan, lambda image: np.where(scan.brain, image, 0))
    found = quality(no_air)["Figures"]["Ghost"]
    assert (found["Value"], found["Level"]) == (None, None)


def test_without_white_matter_the_contrast_is_unknown(scan):
    found = quality(replace(scan, white=np.zeros(SHAPE, np.float32)))
    assert found["Contrast"] == "unknown"
    assert found["Figures"]["GreyToWhite"]["Value"] is None


def test_brightness_as_a_whole_changes_nothing(scan):
    assert levels(changed(scan, lambda image: 7 * image)) == levels(scan)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_red_lies_beyond_amber(limit):
    for amber, red, sign in zip(limit.amber, limit.red, (-1, 1), strict=True):
        assert (amber is None) == (red is None)
        if amber is not None:
            inside, between, outside = (
                amber,
                (amber + red) / 2,
                red + sign * max(abs(red), 1e-3),
            )
            assert [limit.level(v) for v in (inside, between, outside)] == [GREEN, AMBER, RED]
    assert limit.why
    assert limit.reason
    assert LEVELS == (GREEN, AMBER, RED)


def test_coverage_falls_with_the_field_of_view():
    maps, _, affine = load_atlas()
    shape = maps.shape[1:]
    assert atlas_coverage(affine, shape) == 1
    half = atlas_coverage(affine, (shape[0], shape[1], shape[2] // 2))
    assert 0.2 < half < 0.8


def test_a_brain_that_lies_otherwise_does_not_fit_the_atlas():
    _, flair, affine = load_atlas()
    limit = next(limit for limit in LIMITS if limit.name == "AtlasFit")
    noisy = flair * np.random.default_rng(0).uniform(0.8, 1.2, flair.shape).astype(np.float32)
    for image, green in (
        (noisy, True),
        (noisy[:, :, ::-1], False),  # upside down
        (noisy[:, ::-1, ::-1], False),  # upside down and turned
    ):
        assert (limit.level(atlas_fit(image, image > 0, affine)) == GREEN) == green
    away = affine.copy()
    away[:3, 3] += 2000
    assert atlas_fit(noisy, noisy > 0, away) == 0  # nothing in common
    assert atlas_fit(np.ones_like(noisy), noisy > 0, affine) == 0
