"""The branch over lesions: its logits are a sum, few lesions count less, order does not matter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msnmo_bids.model.classification import LesionBranch
from msnmo_bids.model.config import SEGMENTATION, JointConfig
from msnmo_bids.model.joint import JointNetwork

DESCRIPTORS = 5
CONFIG = JointConfig(tasks=(SEGMENTATION,), lesion_descriptors=DESCRIPTORS, lesion_fits=3)


@pytest.fixture
def branch() -> LesionBranch:
    torch.manual_seed(0)
    return LesionBranch(CONFIG)


def lesions(count: int, seed: int = 1) -> torch.Tensor:
    rows = np.random.default_rng(seed).normal(size=(count, DESCRIPTORS))
    rows[:, 0] = 3 + rows[:, 0]  # ln mm³
    return torch.from_numpy(rows.astype(np.float32))


@pytest.mark.parametrize("count", [1, 7, 200])
def test_logits_are_the_sum_of_what_lesions_contribute(branch, count):
    rows = lesions(count)
    parts = branch.contributions(rows)
    assert parts.shape == (count, 2)
    torch.testing.assert_close(branch(rows)[0], parts.sum(dim=0) + branch.bias)


def test_contributions_are_those_of_the_formula(branch):
    rows = lesions(6)
    branch.standardize(lesions(300, seed=2))
    standard = (rows - branch.mean) / branch.deviation
    weight = torch.sqrt(torch.exp(rows[:, 0])) / 10
    expected = 0
    for fit in branch.fits:
        coded = fit.layers(standard)
        pooled = torch.cat(
            [
                coded.sum(dim=0) / (6 + 4) ** 0.5,
                (weight[:, None] * coded).sum(dim=0) / torch.sqrt(weight.sum() + 2),
            ]
        )
        expected = expected + fit.head(pooled) / len(branch.fits)
    torch.testing.assert_close(branch(rows)[0], expected)


def test_order_does_not_matter(branch):
    rows = lesions(9)
    order = torch.randperm(9)
    torch.testing.assert_close(branch.contributions(rows[order]), branch.contributions(rows)[order])
    torch.testing.assert_close(branch(rows[order]), branch(rows))


def test_without_lesions_the_bias_is_left(branch):
    torch.testing.assert_close(branch(lesions(0))[0], branch.bias)


def test_scans_of_a_batch_do_not_see_each_other(branch):
    first, second = lesions(4), lesions(3, seed=5)
    scan = torch.tensor([0, 2, 0, 2, 0, 2, 0])
    joined = torch.zeros(7, DESCRIPTORS)
    joined[scan == 0], joined[scan == 2] = first, second
    logits = branch(joined, scan, 3)
    torch.testing.assert_close(
        logits, torch.cat([branch(first), branch(first[:0]), branch(second)])
    )


def test_the_network_holds_the_branch_and_tells_what_it_reads(branch):
    network = JointNetwork(CONFIG.scaled(0.25)).eval()
    assert not hasattr(network, "classification")
    rows = lesions(5)
    logits, parts = network.forward_lesions(rows)
    torch.testing.assert_close(logits, parts.sum(dim=0) + network.lesion_branch.bias)
    with pytest.raises(ValueError, match="reads 5 columns"):
        network.forward_lesions(rows[:, :4])
    with pytest.raises(ValueError, match="reads 0 columns"):
        JointNetwork(JointConfig(tasks=(SEGMENTATION,)).scaled(0.25)).forward_lesions(rows)
