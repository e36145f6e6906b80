"""The last layer, its calibration and the density, fitted on features."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from dev import head_fit
from dev.head_fit import (
    Features,
    Places,
    features_of,
    fit_head,
    place_of,
    plan_case,
)
from dev.joint_recipe import Recipe
from msnmo_bids.errors import ExitCode
from msnmo_bids.model.config import JointConfig, LossConfig
from msnmo_bids.model.inference import LesionModel
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.location import location_channels
from msnmo_bids.simulation.assets import SimulationAssets


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
    fitted = fit_head(network, features)
    sick = features.labels >= 0
    with torch.no_grad():
        logits = network.classification.head(torch.from_numpy(features.pooled))
    assert (logits.argmax(1).numpy() == features.labels)[sick].all()
    # Left out, among more features that tell nothing than there are scans.
    assert (fitted.logits.argmax(1) == fitted.labels).mean() > 0.65
    np.testing.assert_array_equal(fitted.labels, features.labels[sick])


def test_places_are_learnt_from_other_people():
    """Of scans too few to learn from only how much the places count together."""
    torch.manual_seed(0)
    config = replace(JointConfig(pooling="lesion", location_waves=4).scaled(0.25), density=True)
    network = JointNetwork(config).eval()
    rng = np.random.default_rng(0)
    channels = location_channels(4)
    direction = rng.normal(size=channels)

    def people(count):
        places, labels = rng.normal(size=(count, channels)), np.arange(count) % 2
        return (places + 0.2 * np.outer(2 * labels - 1, direction)).astype(np.float32), labels

    features = made_up(network, rng, telling=0.0)
    sick = features.labels >= 0
    features.pooled[sick, -channels:], labels = people(sick.sum())
    features.labels[sick] = labels
    fitted = fit_head(network, features, Places(*people(1000)))
    assert (fitted.logits.argmax(1) == fitted.labels).mean() > 0.8
    fresh = np.zeros((400, features.pooled.shape[1]), np.float32)
    fresh[:, -channels:], labels = people(400)
    with torch.no_grad():
        logits = network.classification.head(torch.from_numpy(fresh))
    assert (logits.argmax(1).numpy() == labels).mean() > 0.8
    with pytest.raises(ValueError, match="needs places"):
        fit_head(network, features)


def test_a_place_is_pooled_as_the_network_does():
    torch.manual_seed(0)
    network = JointNetwork(JointConfig(pooling="lesion", location_waves=3).scaled(0.25)).eval()
    mask = np.zeros((32, 32, 32), np.uint8)
    mask[4:9, 20:27, 11:14] = 1
    lesions = torch.from_numpy(mask.astype(np.float32))[None, None]
    with torch.no_grad():
        features = network.forward_features(torch.zeros(1, 1, 32, 32, 32))
        pooled, _ = network.forward_classification(features, lesions, pre_logits=True)
    place = place_of(network, mask)
    np.testing.assert_allclose(place, pooled[0, -location_channels(3) :].numpy(), atol=1e-5)


def test_what_tells_nothing_is_given_even_chances(network):
    features = made_up(network, np.random.default_rng(1), telling=0.0)
    fitted = fit_head(network, features)
    margins = np.ptp(fitted.logits, axis=1) / fitted.temperature
    assert np.median(margins) < 0.5


def test_nearly_all_scans_are_within_the_limit(network):
    features = made_up(network, np.random.default_rng(2), telling=1.0)
    fitted = fit_head(network, features)
    distance = network.density(torch.from_numpy(features.statistics)).numpy()
    assert (distance <= fitted.max_distance).mean() > 0.95
    assert network.density(torch.from_numpy(features.statistics + 9)).min() > fitted.max_distance


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


def test_features_are_pooled_over_the_lesions_of_the_lesion_network(network):
    cube = np.random.default_rng(0).standard_normal((32, 32, 32)).astype(np.float32)
    alone, _ = features_of(network, cube)
    same, _ = features_of(network, cube, LesionModel(network, "z-score"))
    other, _ = features_of(network, cube, LesionModel(network, "robust"))
    np.testing.assert_allclose(same, alone)
    assert np.abs(other - alone).max() > 0


def test_features_and_places_are_collected_once(tmp_path, monkeypatch, ball_head, capsys):
    """From the command line, with the head of a network that is tiny."""
    torch.manual_seed(0)
    config = JointConfig(pooling="lesion", location_waves=3, lesion_prior=0.02).scaled(0.25)
    initial = tmp_path / "weights.pt"
    torch.save(JointNetwork(config).state_dict(), initial)
    monkeypatch.setattr(head_fit, "read_recipe", lambda _: Recipe(config, LossConfig(), ()))
    monkeypatch.setattr(head_fit, "assets_of", lambda _: SimulationAssets([ball_head]))
    monkeypatch.setattr(head_fit, "FOLDS", 2)
    paths = {"initial": initial, "anatomy": tmp_path, "lesion-shapes": tmp_path, "out": tmp_path}
    numbers = {"side": 32, "scans": 14, "people": 12, "threads": 1}
    words = [word for name, value in (paths | numbers).items() for word in (f"--{name}", value)]
    monkeypatch.setattr("sys.argv", ["head_fit", *map(str, words)])
    assert head_fit.main() == ExitCode.OK
    summary = json.loads(capsys.readouterr().out)
    assert summary["scans"] == 13  # the ninth person is healthy
    fitted = torch.load(tmp_path / "head_fit.pt", weights_only=True)
    JointNetwork(replace(config, density=True)).load_state_dict(fitted)
    assert fitted["classification.head.weight"][:, -location_channels(3) :].any()
    monkeypatch.setattr(head_fit, "_simulate", pytest.fail)
    assert head_fit.main() == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == summary
