"""How unlike the training scans a scan is: by hand, by property, and through the weights' file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from msnmo_bids.model.inference import predict
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.sharing import FeatureDensity, feature_statistics
from msnmo_bids.model.weights import WeightsMetadata, load_weights, save_weights


def correlated(count: int) -> torch.Tensor:
    """Return rows of three values, the last one nearly the sum of the others."""
    values = torch.randn(count, 2) * torch.tensor([1.0, 50.0]) + torch.tensor([3.0, 0.0])
    return torch.cat([values, values.sum(1, keepdim=True) + 0.01 * torch.randn(count, 1)], dim=1)


def test_statistics_are_those_of_the_brain_alone():
    image = torch.zeros(1, 1, 4, 4, 4)
    image[..., :2, :, :] = 1.0
    maps = torch.full((1, 2, 4, 4, 4), 99.0)
    maps[0, 0, :2] = 5.0
    maps[0, 1, 0], maps[0, 1, 1] = 1.0, 3.0
    torch.testing.assert_close(
        feature_statistics(maps, image), torch.tensor([[5.0, 2.0, 0.0, 1.0]])
    )


def test_statistics_of_an_empty_image_are_finite():
    assert (
        feature_statistics(torch.randn(1, 3, 4, 4, 4), torch.zeros(1, 1, 8, 8, 8)).isfinite().all()
    )


def test_distance_is_one_for_the_usual_and_large_where_a_correlation_breaks():
    density = FeatureDensity(3)
    density.fit(correlated(2000))
    usual = density(correlated(2000))
    assert usual.square().mean().sqrt().item() == pytest.approx(1.0, rel=0.25)  # shrunk
    # Each value is usual by itself.
    odd = density(torch.tensor([[3.0, 40.0, 3.0]]))
    assert odd.item() > 1.5 * usual.max().item()


def test_distance_does_not_depend_on_the_units():
    values, one, other = correlated(100), FeatureDensity(3), FeatureDensity(3)
    scale = torch.tensor([1.0, 1000.0, 0.01])
    one.fit(values)
    other.fit(values * scale)
    torch.testing.assert_close(one(values), other(values * scale), rtol=1e-3, atol=1e-3)


@pytest.fixture
def network(small_config):
    """Return a network whose density knows random volumes."""
    network = JointNetwork(replace(small_config, density=True)).eval()
    with torch.no_grad():
        images = torch.randn(12, 1, 32, 32, 32)
        features = network.forward_features(images)
        network.density.fit(network.forward_statistics(features, images))
    return network


def test_density_travels_with_the_weights_in_full_precision(tmp_path, network):
    save_weights(tmp_path / "w", network, WeightsMetadata("small", "1", max_distance=2.0), "fp16")
    loaded, metadata = load_weights(tmp_path / "w.safetensors")
    torch.testing.assert_close(loaded.density.whitening, network.density.whitening, rtol=0, atol=0)
    assert metadata.max_distance == 2.0


def test_prediction_tells_the_distance(tmp_path, network, small_network):
    save_weights(tmp_path / "with", network, WeightsMetadata("small", "1"))
    save_weights(tmp_path / "without", small_network, WeightsMetadata("small", "1"))
    cube = np.random.default_rng(0).standard_normal((32, 32, 32)).astype(np.float32)
    files = tmp_path / "with.safetensors", tmp_path / "without.safetensors"
    usual, odd = (predict(image, files[0]).distance for image in (cube, np.abs(cube) ** 3))
    assert usual is not None
    assert odd > 1.4 * usual
    assert predict(cube, files[1]).distance is None
