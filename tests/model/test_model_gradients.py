"""Which loss teaches which subnetwork, and that all of them together can fit a batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from msnmo_bids.model import registry
from msnmo_bids.model.config import CHOICES
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.losses import JointLoss


def terms_of(network, side=32):
    """Return the losses of a batch of two random scans."""
    mask = torch.zeros(2, 1, side, side, side)
    mask[0, :, 8:14, 8:14, 8:14] = mask[1, :, 4:20, 6:18, 8:20] = 1
    return JointLoss()(network(torch.randn_like(mask) + mask), mask, torch.tensor([0, 1]))


def reached(module):
    """Return whether a gradient has come to each parameter of a module."""
    return [value.grad is not None and bool(value.grad.any()) for value in module.parameters()]


def test_cross_task_loss_reaches_segmentation_head_and_classifier(small_config):
    # Without guidance the loss has no way to the segmentation but its own.
    network = JointNetwork(replace(small_config, guidance="none"))
    terms_of(network).cross.backward()
    segmentation, classification = network.segmentation, network.classification
    *scales, full_size = segmentation.heads
    assert all(all(reached(head)) for head in scales)
    assert not any(reached(full_size)), "Eq. 11 has three scales"
    assert all(any(reached(part)) for part in (*segmentation.encoders, *segmentation.decoders[:2]))
    assert network.classification.head.weight.grad.abs().sum(dim=1).min() > 0
    assert classification.head.bias.grad is None, "a map (Eq. 10) has no bias"
    assert all(all(reached(block)) for block in classification.blocks)
    assert all(any(reached(part)) for part in network.sharing.children())


@pytest.mark.parametrize("guidance", CHOICES["guidance"])
def test_classification_loss_reaches_the_segmentation_through_the_guidance(small_config, guidance):
    config = replace(small_config, guidance=guidance)
    network = JointNetwork(config)
    terms_of(network).classification.backward()
    taught = reached(network.segmentation)
    if config.needs_lesions:
        assert all(taught)
    else:
        assert not any(taught)
    assert all(reached(network.guidance))
    assert any(reached(network.sharing))


def test_segmentation_loss_does_not_reach_the_classification(small_config):
    network = JointNetwork(small_config)
    terms_of(network).segmentation.backward()
    assert all(reached(network.segmentation))
    assert not any(reached(network.guidance) + reached(network.classification))


def two_scans():
    """Two heads of 32 voxels a side: five small lesions (MS), one large one (NMOSD)."""
    grid = torch.stack(torch.meshgrid(*[torch.arange(32.0)] * 3, indexing="ij"))

    def ball(centre, radius):
        return (grid - torch.tensor(centre).reshape(3, 1, 1, 1)).square().sum(dim=0) <= radius**2

    scattered = [(9, 10, 16), (21, 11, 17), (10, 20, 14), (22, 21, 20), (15, 8, 22)]
    few = torch.stack([ball(centre, 2) for centre in scattered]).any(dim=0)
    mask = torch.stack([few, ball((16, 19, 9), 3.5)])[:, None].float()
    image = torch.randn(mask.shape) * 0.5 + mask
    return image * ball((15.5, 15.5, 15.5), 14), mask, torch.tensor([0, 1])


def dice(logits, mask):
    predicted = (logits > 0).float()
    overlap = (predicted * mask).sum(dim=(1, 2, 3, 4))
    return 2 * overlap / (predicted + mask).sum(dim=(1, 2, 3, 4))


@pytest.mark.slow
def test_joint_network_fits_one_batch():
    """The paper's network, losses and optimiser learn two scans by heart."""
    image, mask, diagnosis = two_scans()
    entry = registry.entry("joint")
    network, loss = entry.build(), JointLoss(entry.loss)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(200):
        output = network(image)
        overlap = dice(output.lesion_logits, mask)
        certain = output.class_logits.softmax(dim=1)[[0, 1], diagnosis]
        if overlap.min() > 0.95 and certain.min() > 0.95:
            break
        optimizer.zero_grad()
        loss(output, mask, diagnosis).total.backward()
        optimizer.step()
    assert overlap.min() > 0.95
    assert certain.min() > 0.95
