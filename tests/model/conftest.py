"""Small networks and volumes; everything runs on one thread of the CPU."""

from __future__ import annotations

import pytest
import torch

from msnmo_bids.model.config import JointConfig
from msnmo_bids.model.joint import JointNetwork


@pytest.fixture(autouse=True)
def _reproducible():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small_config():
    return JointConfig().scaled(0.25)


@pytest.fixture
def small_network(small_config):
    return JointNetwork(small_config).eval()
