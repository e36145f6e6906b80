"""Location maps: smooth, alike on both sides, and pooled over the lesions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msnmo_bids.model.config import JointConfig
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.location import location_channels, location_maps
from msnmo_bids.model.losses import JointLoss


@given(waves=st.integers(1, 5), sides=st.tuples(*[st.integers(5, 9)] * 3))
def test_maps_are_orthogonal_and_alike_on_both_sides(waves, sides):
    maps = location_maps(sides, waves)
    assert maps.shape == (location_channels(waves), *sides)
    torch.testing.assert_close(maps, maps.flip(1))
    flat = torch.cat([torch.ones(1, int(np.prod(sides))), maps.flatten(1)])
    product = flat @ flat.T
    torch.testing.assert_close(product, torch.diag(product.diag()), rtol=0, atol=1e-3)


def test_no_maps():
    assert location_channels(0) == 0


def test_same_place_whatever_the_grid():
    """A finer grid samples the same functions."""
    coarse, fine = (location_maps((side,) * 3, 4) for side in (8, 16))
    halved = torch.nn.functional.avg_pool3d(fine[None], 2)[0]
    torch.testing.assert_close(halved, coarse, rtol=0, atol=0.1)


@pytest.fixture
def network():
    torch.manual_seed(0)
    config = JointConfig(pooling="lesion", location_waves=3, lesion_prior=0.02).scaled(0.25)
    return JointNetwork(config).eval()


def pooled(network, lesions):
    with torch.no_grad():
        features = network.forward_features(torch.zeros(1, 1, 32, 32, 32))
        values, maps = network.forward_classification(features, lesions, pre_logits=True)
    return values[0, -location_channels(3) :], maps[-1][0]


def test_lesions_are_pooled_where_they_lie(network):
    lesions = torch.zeros(1, 1, 32, 32, 32)
    lesions[..., 8:16, 16:24, 24:32] = 1e6
    values, maps = pooled(network, lesions)
    torch.testing.assert_close(values, maps[:, 1, 2, 3], rtol=1e-3, atol=1e-3)
    mirrored, _ = pooled(network, lesions.flip(2))
    torch.testing.assert_close(values, mirrored)
    lesions = lesions.flip(4)
    elsewhere, _ = pooled(network, lesions)
    assert (values - elsewhere).abs().max() > 0.5


def test_no_lesion_is_no_place(network):
    values, _ = pooled(network, torch.zeros(1, 1, 32, 32, 32))
    torch.testing.assert_close(values, torch.zeros_like(values), rtol=0, atol=1e-5)


def test_location_is_learnt_and_left_out_of_the_cross_task_loss(network):
    images, mask = torch.randn(2, 1, 32, 32, 32), torch.zeros(2, 1, 32, 32, 32)
    mask[:, :, 4:12, 4:12, 4:12] = 1
    terms = JointLoss()(network(images), mask, torch.tensor([0, 1]))
    terms.total.backward()
    gradient = network.classification.head.weight.grad[:, -location_channels(3) :]
    assert gradient.abs().max() > 0


def test_average_pooling_has_no_use_for_location():
    with pytest.raises(ValueError, match="use pooling='lesion', or 0"):
        JointConfig(location_waves=3)
