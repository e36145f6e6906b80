"""The last layer, its calibration and the density, fitted on features."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from msnmo_bids.model.config import JointConfig
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.training.readout import Features, features_of, fit_readout, plan_case


@pytest.fixture
def network():
    torch.manual_seed(0)
    return JointNetwork(replace(JointConfig().scaled(0.25), density=True)).eval()


def made_up(network, rng, *, telling: float) -> Features:
    """Return features of 120 scans, the third of which tells the class as far as asked for."""
    pooled = rng.normal(size=(120, network.classification.head.in_features))
    labels = np.arange(120) % 3 - 1
    pooled[:, 3] = 100 * (pooled[:, 3] + telling * labels)
    statistics = rng.normal(size=(120, len(network.density.mean))).astype(np.float32)
    return Features(pooled.astype(np.float32), statistics, labels)


def test_last_layer_learns_what_tells_the_classes_apart(network):
    features = made_up(network, np.random.default_rng(0), telling=6.0)
    readout = fit_readout(network, features)
    sick = features.labels >= 0
    with torch.no_grad():
        logits = network.classification.head(torch.from_numpy(features.pooled))
    assert (logits.argmax(1).numpy() == features.labels)[sick].all()
    # Left out, among more features that tell nothing than there are scans.
    assert (readout.logits.argmax(1) == readout.labels).mean() > 0.65
    np.testing.assert_array_equal(readout.labels, features.labels[sick])


def test_what_tells_nothing_is_given_even_chances(network):
    features = made_up(network, np.random.default_rng(1), telling=0.0)
    readout = fit_readout(network, features)
    margins = np.ptp(readout.logits, axis=1) / readout.temperature
    assert np.median(margins) < 0.5


def test_a_last_layer_that_is_good_enough_stays(network):
    features = made_up(network, np.random.default_rng(0), telling=6.0)
    before = network.classification.head.weight.clone()
    readout = fit_readout(network, features, last_layer=False)
    torch.testing.assert_close(network.classification.head.weight, before, rtol=0, atol=0)
    assert readout.penalty is None
    assert network.density.mean.any()


def test_nearly_all_scans_are_within_the_limit(network):
    features = made_up(network, np.random.default_rng(2), telling=1.0)
    readout = fit_readout(network, features)
    distance = network.density(torch.from_numpy(features.statistics)).numpy()
    assert (distance <= readout.max_distance).mean() > 0.95
    assert network.density(torch.from_numpy(features.statistics + 9)).min() > readout.max_distance


def test_plan_has_both_classes_alike_and_some_healthy():
    cases = [plan_case(number, np.random.default_rng(number)) for number in range(360)]
    counts = Counter(case.diagnosis for case in cases)
    assert counts["HC"] == 40
    assert counts["MS"] == counts["NMOSD"] == 160
    for protocol in {case.protocol for case in cases}:
        found = Counter(case.diagnosis for case in cases if case.protocol == protocol)
        assert abs(found["MS"] - found["NMOSD"]) <= 4


def test_features_are_the_networks(network):
    cube = np.random.default_rng(0).standard_normal((32, 32, 32))
    pooled, statistics = features_of(network, cube)
    image = torch.from_numpy(cube.astype(np.float32))[None, None]
    with torch.no_grad():
        logits = network(image).class_logits
        again = network.classification.head(torch.from_numpy(pooled)[None])
    torch.testing.assert_close(again, logits)
    assert statistics.shape == network.density.mean.shape
