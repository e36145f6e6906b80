"""A tiny network."""

from __future__ import annotations

import pytest
import torch

from msnmo_bids.model.config import JointConfig


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
