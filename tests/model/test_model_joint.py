"""The joint network: shapes, ablations, flow of gradients, independence of samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from msnmo_bids.model import registry
from msnmo_bids.model.config import JointConfig
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.losses import JointLoss
from msnmo_bids.model.segmentation import JointOutput

SEG, CLS = ("segmentation",), ("classification",)


def shapes(tensors):
    return None if tensors is None else [tuple(tensor.shape) for tensor in tensors]


@pytest.mark.parametrize(
    ("settings", "sides", "classes"),
    [
        ({}, (32, 32, 32), 2),
        ({}, (16, 16, 16), 2),
        ({}, (48, 32, 64), 2),
        ({"classes": ("MS", "NMOSD", "HC")}, (32, 48, 32), 3),
        ({"embedding_channels": 16}, (32, 32, 32), 2),
        ({"segmentation_normalization": "batch", "local_normalization": "batch"}, (32,) * 3, 2),
    ],
)
def test_shapes(settings, sides, classes):
    config = JointConfig(**settings)
    with torch.no_grad():
        output = JointNetwork(config)(torch.randn(2, 1, *sides))
    half, quarter, eighth = (tuple(side // part for side in sides) for part in (2, 4, 8))
    assert output.lesion_logits.shape == (2, 1, *sides)
    assert shapes(output.scale_logits) == [(2, 1, *grid) for grid in (eighth, quarter, half, sides)]
    assert shapes(output.class_features) == [(2, 64, *half), (2, 128, *quarter), (2, 256, *eighth)]
    assert output.class_logits.shape == (2, classes)
    assert output.class_weight.shape == (classes, 448)
    assert output.lesion_probability.min() >= 0
    assert output.lesion_probability.max() <= 1


@pytest.mark.parametrize(
    "shape", [(1, 32, 32, 32), (1, 2, 32, 32, 32), (1, 1, 32, 32), (1, 1, 40, 32, 32)]
)
def test_impossible_images_are_refused(small_network, shape):
    with pytest.raises(ValueError, match="multiples of 16 and at least 16, not"):
        small_network(torch.zeros(shape))


def test_the_model_learns(small_config):
    """A small and a large bright block, one for each class, are learned within a few steps."""
    image, mask = torch.randn(2, 1, 16, 16, 16) * 0.5, torch.zeros(2, 1, 16, 16, 16)
    mask[0, :, 3:6, 4:8, 4:7] = 1
    mask[1, :, 4:12, 5:14, 3:12] = 1
    network, labels = JointNetwork(small_config), torch.tensor([0, 1])
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    history = []
    for _ in range(30):
        terms = JointLoss()(network(image + 2 * mask), mask, labels)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        history.append(terms.to_floats())
    assert history[-1]["segmentation"] < 0.5 * history[0]["segmentation"]
    assert history[-1]["classification"] < 0.5 * history[0]["classification"]


def test_paper_model_has_the_stated_intermediate_sizes():
    network = JointNetwork()
    image = torch.randn(1, 1, 32, 32, 32)
    features = network.forward_features(image)
    assert features.segmentation.shape == features.classification.shape == (1, 32, 16, 16, 16)
    maps = network.forward_segmentation(features, image)
    joint = network.guidance(features.classification, maps.lesion_logits.sigmoid())
    assert joint.shape == (1, 32, 16, 16, 16)
    _, found = network.forward_classification(features, maps.lesion_logits)
    assert network.classification.pooled(found).shape == (1, 448)


def test_tasks_can_be_left_out(small_network):
    image = torch.randn(1, 1, 32, 32, 32)
    calls = []
    small_network.classification.register_forward_pre_hook(lambda *_: calls.append("forward"))
    small_network.guidance.register_forward_pre_hook(lambda *_: calls.append("guidance"))
    output = small_network(image, tasks=SEG)
    assert output.class_logits is None
    assert calls == []
    full = small_network(image)
    assert torch.equal(output.lesion_logits, full.lesion_logits)
    assert calls == ["guidance"]
    assert torch.equal(small_network(image, tasks=CLS).class_logits, full.class_logits)


def test_unguided_classification_skips_the_segmentation(small_config):
    network = JointNetwork(replace(small_config, guidance="none"))
    assert network(torch.randn(1, 1, 32, 32, 32), tasks=CLS).lesion_logits is None


@pytest.mark.parametrize("tasks", [(), ("detection",), CLS])
def test_tasks_that_the_model_lacks_are_refused(small_config, tasks):
    network = JointNetwork(replace(small_config, tasks=SEG))
    with pytest.raises(ValueError, match="built for segmentation"):
        network(torch.zeros(1, 1, 32, 32, 32), tasks=tasks)


def test_subnetworks_that_the_model_lacks_are_refused(small_config):
    image = torch.zeros(1, 1, 32, 32, 32)
    only_seg = JointNetwork(replace(small_config, tasks=SEG))
    with pytest.raises(ValueError, match="without the classification"):
        only_seg.forward_classification(only_seg.forward_features(image))
    only_cls = JointNetwork(replace(small_config, tasks=CLS, guidance="none"))
    with pytest.raises(ValueError, match="without the segmentation"):
        only_cls.forward_segmentation(only_cls.forward_features(image), image)
    both = JointNetwork(small_config)
    with pytest.raises(ValueError, match="needs the lesion probability"):
        both.forward_classification(both.forward_features(image))


@pytest.mark.parametrize("shape", [(32, 32, 32), (48, 32, 32)])
@pytest.mark.parametrize("name", ["joint", "without_sharing", "guidance_add"])
def test_batch_of_two_equals_two_singles(name, shape):
    network = registry.entry(name).build().eval()
    images = torch.randn(2, 1, *shape) * torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1, 1)
    with torch.no_grad():
        together = network(images)
        for index in range(2):
            alone = network(images[index : index + 1])
            for field in ("lesion_logits", "class_logits"):
                both = getattr(together, field)[index]
                torch.testing.assert_close(getattr(alone, field)[0], both, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["joint", "only_classification", "without_guidance"])
def test_pooled_features_differ_between_scans(name):
    """An instance normalisation before the average pooling would make them nearly constant."""
    network = registry.entry(name).build().eval()
    images = torch.randn(4, 1, 32, 32, 32)
    images[1, :, 8:20, 8:20, 8:20] += 3
    images[2] = torch.nn.functional.avg_pool3d(images[2], 5, 1, 2) * 8
    images[3, :, :, :16] = 0
    with torch.no_grad():
        features = network.forward_features(images)
        lesions = None
        if network.config.needs_lesions:
            lesions = network.forward_segmentation(features, images).lesion_logits.sigmoid()
        _, found = network.forward_classification(features, lesions)
        pooled = network.classification.pooled(found)
    # With an instance normalisation the medians are 0.02 to 0.07, with groups 0.15 to 0.55.
    for scale in pooled.split(network.config.classification_channels, dim=1):
        assert scale.std(dim=0).median() > 1e-3
        assert (scale.std(dim=0) / scale.abs().mean(dim=0)).median() > 0.1


@pytest.mark.usefixtures("without_onednn")
def test_bfloat16_autocast(small_network):
    network = small_network.train()
    image = torch.randn(2, 1, 16, 32, 16)
    mask = (torch.rand(2, 1, 16, 32, 16) > 0.9).float()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(image)
        terms = JointLoss()(output, mask, torch.tensor([0, 1]))
    terms.total.backward()
    assert output.class_logits.dtype == torch.float32
    exact = network(image)
    torch.testing.assert_close(output.class_logits, exact.class_logits, rtol=0.05, atol=0.05)
    error = (output.lesion_probability - exact.lesion_probability).abs().mean()
    assert error < 0.02
    assert all(value.grad.isfinite().all() for value in network.parameters())


def test_lesion_prior_sets_the_first_probability():
    network = JointNetwork(JointConfig(tasks=SEG))
    for head in network.segmentation.heads:
        torch.nn.init.zeros_(head.weight)
    probability = network(torch.randn(1, 1, 32, 32, 32)).lesion_probability
    torch.testing.assert_close(probability, torch.full_like(probability, 0.01))


def test_empty_output_has_no_probability():
    assert JointOutput().lesion_probability is None
