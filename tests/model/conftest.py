"""Small networks and volumes."""

from __future__ import annotations

import pytest
import torch

from msnmo_bids.model.config import JointConfig
from msnmo_bids.model.joint import JointNetwork


@pytest.fixture(autouse=True)
def _reproducible():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def small_config():
    return JointConfig().scaled(0.25)


@pytest.fixture
def small_network(small_config):
    return JointNetwork(small_config).eval()
