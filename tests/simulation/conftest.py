"""A tiny head: nested ellipsoids at 1 mm, with ventricles, brainstem and cerebellum."""

from __future__ import annotations

import numpy as np
import pytest

from msnmo_bids.simulation.anatomy import Head, Tissue, head_from_tissue

SIDE = 64


def tissue_map() -> np.ndarray:
    """Values of `Tissue`, (64, 64, 64), RAS."""
    x, y, z = (axis - (SIDE - 1) / 2 for axis in np.indices((SIDE,) * 3))

    def ellipsoid(centre, half) -> np.ndarray:
        place = zip((x, y, z), centre, half, strict=True)
        return sum(((axis - c) / h) ** 2 for axis, c, h in place) <= 1

    tissue = np.zeros((SIDE,) * 3, np.uint8)
    layers = (
        ((0, 0, 0), (30, 31, 31), Tissue.SCALP),
        ((0, 0, 0), (28, 29, 29), Tissue.BONE),
        ((0, 0, 0), (26, 27, 27), Tissue.CSF),
        ((0, 0, 2), (24, 25, 23), Tissue.CORTEX),
        ((0, 0, 2), (21, 22, 20), Tissue.WHITE_MATTER),
        ((0, -14, -15), (13, 8, 6), Tissue.CEREBELLAR_CORTEX),
        ((0, -14, -15), (11, 6, 4), Tissue.CEREBELLAR_WHITE),
        ((0, -3, -15), (5, 5, 11), Tissue.BRAINSTEM),
        ((0, -8, -14), (2, 2, 3), Tissue.FOURTH_VENTRICLE),
        ((-8, 3, -2), (4, 5, 4), Tissue.DEEP_GREY),
        ((8, 3, -2), (4, 5, 4), Tissue.DEEP_GREY),
        ((-5, 0, 5), (3, 10, 4), Tissue.LATERAL_VENTRICLE),
        ((5, 0, 5), (3, 10, 4), Tissue.LATERAL_VENTRICLE),
        ((0, 0, -2), (1.5, 4, 4), Tissue.THIRD_VENTRICLE),
    )
    for centre, half, kind in layers:
        tissue[ellipsoid(centre, half)] = kind
    return tissue


@pytest.fixture(scope="session")
def tiny_head() -> Head:
    affine = np.eye(4)
    affine[:3, 3] = (-31, -40, -25)
    return head_from_tissue(tissue_map(), affine, "tiny")
