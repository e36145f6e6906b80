"""Heads without lesions: how they are made, and what is counted in them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.torch import save_file

from dev import healthy
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.simulation.assets import SimulationAssets


def test_lesions_above_a_threshold_are_counted_in_ml():
    probability = np.zeros((20, 20, 20), np.float32)
    probability[2:12, 2:12, 2:12] = 0.7
    probability[15, 15, 15] = 0.9  # smaller than a lesion
    marked = healthy.marked_volumes(probability, 2.0, (0.5, 0.8))
    assert marked == pytest.approx({0.5: 2.0, 0.8: 0.0})


def test_heads_are_made_once_and_every_training_looks_at_all(
    ball_head, tiny_config, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    run.mkdir()
    network = JointNetwork(tiny_config)
    save_file(network.state_dict(), run / "weights.safetensors")
    (run / "training.json").write_text(json.dumps({"network": network.config.to_dict()}))
    monkeypatch.setattr(healthy, "_SIDE", 32)
    monkeypatch.setattr(healthy, "assets_of", lambda _: SimulationAssets([ball_head]))
    words = ["healthy", str(tmp_path / "out"), "--anatomy", ".", "--count", "2"]
    monkeypatch.setattr("sys.argv", words)
    healthy.main()
    with np.load(tmp_path / "out" / "00001.npz") as head:
        image, voxel = head["image"], head["voxel"]
    assert image.shape == (32, 32, 32)
    assert abs(float(image[image != 0].mean())) < 1
    assert voxel > 0
    assert not (tmp_path / "out" / "healthy.tsv").exists()
    monkeypatch.setattr(healthy, "assets_of", None)  # everything is there
    monkeypatch.setattr("sys.argv", [*words, "--runs", str(run)])
    healthy.main()
    table = (tmp_path / "out" / "healthy.tsv").read_text().splitlines()
    assert len(table) == 3
    assert table[1].split("\t")[:2] == [str(run), "0"]
    assert "heads of 2 with less than 0.2 ml" in capsys.readouterr().out
