"""Sharing, binding of scales, guidance, class activation maps: the equations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from msnmo_bids.model.blocks import (
    BrainNormalization,
    ConvUnit,
    build_normalization,
    fold_batch_normalization,
    halve,
)
from msnmo_bids.model.cam import class_activation_maps, combined_cam
from msnmo_bids.model.classification import LesionGuidance
from msnmo_bids.model.config import JointConfig
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.segmentation import bind_scales
from msnmo_bids.model.sharing import CrossoverUnit, InformationSharing, LocalBranch

IMAGE = (1, 1, 32, 32, 32)


def test_halving_is_average_pooling():
    maps = torch.randn(2, 3, 4, 6, 8)
    torch.testing.assert_close(halve(maps), F.avg_pool3d(maps, 2))
    assert halve(maps.bfloat16()).dtype == torch.bfloat16


def test_instance_normalization_is_torchs():
    ours = build_normalization(6, "instance")
    maps = torch.randn(2, 6, 4, 4, 4) * 5 + 3
    torch.testing.assert_close(ours(maps), F.instance_norm(maps))


@pytest.mark.parametrize(
    ("channels", "name", "groups"), [(16, "group", 2), (4, "group", 1), (16, "instance", 16)]
)
def test_groups_of_a_normalization(channels, name, groups):
    assert build_normalization(channels, name).num_groups == groups


def test_folding_batch_normalization_changes_no_value():
    torch.manual_seed(0)
    network = torch.nn.Sequential(ConvUnit(2, 8, "batch"), ConvUnit(8, 8, "group"))
    for _ in range(3):  # statistics that are not those it starts with
        network(3 + 2 * torch.randn(2, 2, 4, 4, 4))
    image = torch.randn(1, 2, 4, 4, 4)
    expected = network.eval()(image)
    fold_batch_normalization(network)
    torch.testing.assert_close(network(image), expected)
    kinds = [type(module).__name__ for module in network.modules()]
    assert "BatchNorm3d" not in kinds
    assert "GroupNorm" in kinds


def test_a_brain_is_normalised_alike_on_a_crop_and_in_a_whole_head():
    brain = 0.3 + 2 * torch.randn(1, 1, 12, 12, 12)
    head = F.pad(brain, (10,) * 6)
    layer = BrainNormalization(1)
    crop, whole = layer(brain), layer(head)[..., 10:-10, 10:-10, 10:-10]
    torch.testing.assert_close(whole, crop)
    assert crop.mean().item() == pytest.approx(0, abs=1e-5)
    assert crop.std(unbiased=False).item() == pytest.approx(1, abs=1e-4)


def test_the_local_branch_sees_a_whole_head_in_the_units_of_a_crop():
    torch.manual_seed(0)
    branch = LocalBranch(JointConfig(local_normalization="batch").scaled(0.25)).eval()
    brain = torch.randn(1, 1, 32, 32, 32)
    inner = (..., *[slice(5, 11)] * 3)  # what the border does not reach
    with torch.no_grad():
        crop, whole = branch(brain), branch(F.pad(brain, (16,) * 6))[..., 8:-8, 8:-8, 8:-8]
    torch.testing.assert_close(whole[inner], crop[inner], atol=1e-5, rtol=1e-4)


def test_images_of_a_batch_and_channels_are_normalised_each_for_itself():
    images = (
        torch.randn(2, 2, 6, 6, 6) * torch.tensor([[1.0, 5.0], [9.0, 2.0]])[..., None, None, None]
    )
    layer = BrainNormalization(2)
    layer.weight.data, layer.bias.data = torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])
    found = layer(images.bfloat16())
    assert found.dtype == torch.float32
    spread = found.std(dim=(2, 3, 4), unbiased=False)
    torch.testing.assert_close(spread, torch.tensor([[2.0, 3.0]] * 2), rtol=1e-3, atol=0)
    torch.testing.assert_close(found.mean(dim=(0, 2, 3, 4)), layer.bias.data, rtol=0, atol=1e-3)


def test_an_image_without_a_brain_becomes_the_bias():
    layer = BrainNormalization(1)
    layer.bias.data.fill_(0.5)
    assert (layer(torch.zeros(1, 1, 4, 4, 4)) == 0.5).all()


def test_local_branch_does_not_lose_the_single_channel():
    features = LocalBranch(JointConfig())(torch.randn(IMAGE))
    assert features.std() > 0.1


def test_local_branch_is_blind_to_the_units_of_the_image():
    branch, image = LocalBranch(JointConfig()), torch.randn(IMAGE)
    torch.testing.assert_close(branch(image), branch(image * 7 + 100), rtol=1e-3, atol=1e-3)


def test_crossover_is_equation_4():
    unit = CrossoverUnit(JointConfig().tasks)
    local, global_ = torch.randn(2, 2, 32, 4, 4, 4)
    mixed = unit(local, global_)
    torch.testing.assert_close(mixed["segmentation"], 0.7 * local + 0.3 * global_)
    torch.testing.assert_close(mixed["classification"], 0.3 * local + 0.7 * global_)


def test_crossover_starts_and_stays_asymmetric():
    config = JointConfig()
    sharing = InformationSharing(config)
    optimizer = torch.optim.SGD(sharing.parameters(), lr=0.1)
    for _ in range(2):
        features = sharing(torch.randn(IMAGE))
        assert not torch.allclose(features.segmentation, features.classification)
        optimizer.zero_grad()
        (features.segmentation.pow(2).mean() + features.classification.pow(2).mean()).backward()
        optimizer.step()
    weights = sharing.crossover.weights
    assert not torch.allclose(weights["segmentation"], weights["classification"])
    assert weights["segmentation"].grad.abs().min() > 0


@pytest.mark.parametrize(
    ("sharing", "same"), [("both", False), ("none", False), ("local", True), ("global", True)]
)
def test_sharing_variants(sharing, same):
    features = InformationSharing(JointConfig(sharing=sharing))(torch.randn(IMAGE))
    assert (features.segmentation is features.classification) is same
    assert torch.equal(features.segmentation, features.classification) is same


def test_unshared_tasks_share_no_parameter():
    network = InformationSharing(JointConfig(sharing="none"))
    network(torch.randn(IMAGE)).segmentation.sum().backward()
    assert all(value.grad is None for value in network.branches["classification"].parameters())


@given(sides=st.tuples(*[st.integers(1, 3)] * 3))
@settings(deadline=None, max_examples=20)
def test_binding_is_equation_5(sides):
    scales = [torch.randn(2, 1, *(side * 2**step for side in sides)) for step in range(4)]
    full = scales[-1].shape[2:]
    weights = (0.25, 0.25, 0.5, 1.0)
    expected = sum(
        weight * F.interpolate(scale, full, mode="nearest")
        for weight, scale in zip(weights, scales, strict=True)
    )
    torch.testing.assert_close(bind_scales(scales), expected)


def test_skip_of_full_resolution_is_the_image():
    network = JointNetwork(JointConfig(tasks=("segmentation",)))
    features = network.forward_features(torch.randn(IMAGE))
    maps = [network.forward_segmentation(features, torch.randn(IMAGE)) for _ in range(2)]
    first, second = (result.scale_logits for result in maps)
    assert all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))
    assert not torch.allclose(first[3], second[3])


def guided(**changes):
    module = LesionGuidance(JointConfig(shared_channels=8, **changes))
    return module, torch.randn(2, 8, 4, 4, 4), torch.rand(2, 1, 8, 8, 8)


def test_dot_guidance_is_equations_7_and_8():
    module, features, lesions = guided(guidance="dot")
    convolution = module.attention_conv
    alpha = F.conv3d(lesions, convolution.weight, convolution.bias, stride=2, padding=1).sigmoid()
    torch.testing.assert_close(module(features, lesions), features * alpha)


def test_full_guidance_is_equation_9():
    module, features, lesions = guided(guidance="full")
    emphasized = features * module.attention_map(lesions)
    parts = [module.lesion_conv(lesions), module.feature_conv(emphasized)]
    torch.testing.assert_close(module(features, lesions), module.fusion_conv(torch.cat(parts, 1)))
    assert parts[0].shape == parts[1].shape == features.shape
    assert module.fusion_conv.kernel_size == (1, 1, 1)


def test_other_guidance_variants():
    module, features, lesions = guided(guidance="none")
    assert module(features, lesions) is features
    assert list(module.parameters()) == []
    module, features, lesions = guided(guidance="add")
    torch.testing.assert_close(module(features, lesions), features + module.lesion_conv(lesions))
    module, features, lesions = guided(guidance="concat")
    assert not hasattr(module, "attention_conv")
    assert module(features, lesions).shape == features.shape


@pytest.mark.parametrize("sides", [(32, 32, 32), (32, 64, 48)])
def test_maps_add_up_to_the_class_logits(sides):
    """Mean of V_i over its own grid, summed over the scales, is the logit minus the bias."""
    network = JointNetwork(JointConfig(classes=("MS", "NMOSD", "HC"))).eval()
    with torch.no_grad():
        output = network(torch.randn(2, 1, *sides))
    expected = output.class_logits - network.classification.head.bias
    for index in range(3):
        maps = class_activation_maps(output.class_features, output.class_weight, index)
        assert [tuple(scale.shape[1:]) for scale in maps] == [
            (1, *(side // part for side in sides)) for part in (2, 4, 8)
        ]
        total = sum(scale.mean(dim=(1, 2, 3, 4)) for scale in maps)
        torch.testing.assert_close(total, expected[:, index], rtol=1e-4, atol=1e-5)
    combined = combined_cam(output.class_features, output.class_weight, sides)
    assert combined.shape == (2, 3, *sides)


def test_combined_map_is_the_sum_of_the_upsampled_maps():
    features = [torch.randn(2, width, side, side, side) for width, side in ((4, 8), (6, 4), (8, 2))]
    weight = torch.randn(3, 18)
    combined = combined_cam(features, weight, (16, 16, 16))
    for index in range(3):
        maps = class_activation_maps(features, weight, index)
        expected = sum(F.interpolate(scale, (16,) * 3, mode="trilinear") for scale in maps)
        torch.testing.assert_close(combined[:, index : index + 1], expected, rtol=1e-4, atol=1e-5)


def test_each_sample_has_its_own_class():
    features = [torch.randn(2, 3, 2, 2, 2), torch.randn(2, 5, 1, 1, 1)]
    weight = torch.randn(4, 8)
    mixed = class_activation_maps(features, weight, torch.tensor([3, 1]))
    for sample, index in enumerate((3, 1)):
        for scale, both in zip(class_activation_maps(features, weight, index), mixed, strict=True):
            torch.testing.assert_close(scale[sample], both[sample])
    by_hand = sum(features[0][0, k] * weight[3, k] for k in range(3))
    torch.testing.assert_close(mixed[0][0, 0], by_hand)
