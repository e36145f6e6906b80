"""The joint network for the app, from a training's checkpoint."""

from __future__ import annotations

import pytest
import torch

from dev import export_joint
from dev.joint_recipe import Recipe
from msnmo_bids.model.config import LossConfig
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import load_weights


@pytest.fixture
def run(tmp_path, monkeypatch, tiny_config):
    """Export a tiny network with some options."""
    torch.manual_seed(0)
    trained = JointNetwork(tiny_config).state_dict()
    torch.save(trained, tmp_path / "trained.pt")
    monkeypatch.setattr(
        export_joint, "read_recipe", lambda _: Recipe(tiny_config, LossConfig(), ())
    )

    def start(*options):
        file = tmp_path / "tiny.safetensors"
        words = [tmp_path / "trained.pt", "--version", "0.1", "--out", file, "--side", "32"]
        monkeypatch.setattr("sys.argv", ["export_joint", *map(str, (*words, *options))])
        export_joint.main()
        return trained, *load_weights(file)

    return start


def test_weights_are_those_that_were_trained(run):
    trained, network, metadata = run()
    assert (metadata.name, metadata.version, metadata.cube_shape) == ("tiny", "0.1", (32, 32, 32))
    assert metadata.calibration.method == "none"
    assert "no real scan" in metadata.trained_on[0]
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, trained[name], rtol=2e-3, atol=1e-4)
