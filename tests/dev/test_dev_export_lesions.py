"""How far a scan may lie from those of the training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from dev import export_lesions
from dev.brains import make_brain, write_brain
from msnmo_bids.model.joint import JointNetwork


@pytest.fixture
def brain():
    def draw(number):
        rng = np.random.default_rng(number)
        image = rng.normal(size=(32, 32, 32)).astype(np.float32) * rng.uniform(0.8, 1.2)
        image[:4] = 0
        return make_brain(image, np.zeros(image.shape, np.uint8))

    return draw


def test_most_brains_lie_within_the_limit_and_others_do_not(
    tmp_path, brain, tiny_config, monkeypatch
):
    torch.manual_seed(0)
    network = JointNetwork(
        replace(tiny_config, tasks=("segmentation",), sharing="local", local_normalization="batch")
    ).eval()
    for number in range(84):
        write_brain(tmp_path / f"{number:05d}.npz", brain(number))
    real = [[brain(100), brain(101)], [brain(102)]]
    monkeypatch.setattr(export_lesions, "real_brains", lambda folder, without: (real, [1.0, 1.0]))
    found, limit = export_lesions.with_density(network, tmp_path, tmp_path / "prepared", 80)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value)

    def distance(image):
        volume = torch.from_numpy(np.asarray(image, np.float32))[None, None]
        statistics = found.forward_statistics(found.forward_features(volume), volume)
        return float(found.density(statistics)[0].detach())

    others = [distance(brain(number).image) for number in range(80, 84)]
    assert np.mean(np.array(others) <= limit) >= 0.75
    smooth = ndimage.uniform_filter(brain(80).image.astype(np.float32), 5)
    assert distance(smooth) > 2 * limit
