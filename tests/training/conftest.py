"""A tiny network and a tiny head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msnmo_bids.model.config import JointConfig
from msnmo_bids.simulation.anatomy import Head, Tissue, head_from_tissue


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_config() -> JointConfig:
    return JointConfig(
        shared_channels=8,
        embedding_channels=8,
        attention_heads=2,
        segmentation_channels=(8, 8, 8),
        decoder_channels=(8, 8, 8),
        classification_channels=(8, 8, 8),
        lesion_prior=0.02,
        pooling="lesion",
        guidance_start="lesion",
    )


@pytest.fixture(scope="session")
def ball_head() -> Head:
    """Scalp around white matter around a ventricle, 48 mm across."""
    radius = np.linalg.norm(np.indices((48, 48, 48)) - 23.5, axis=0)
    tissue = np.zeros((48, 48, 48), np.uint8)
    for limit, kind in ((22, Tissue.SCALP), (19, Tissue.CORTEX), (16, Tissue.WHITE_MATTER),
                        (4, Tissue.LATERAL_VENTRICLE)):  # fmt: skip
        tissue[radius < limit] = kind
    return head_from_tissue(tissue, np.eye(4), "ball")
