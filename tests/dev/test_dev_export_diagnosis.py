"""A fitted branch in weights: the segmentation stays as it was."""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from safetensors.torch import save_file

from dev import export_diagnosis
from dev.fit_diagnosis import CONFIG
from dev.simulated_people import CLASSES
from msnmo_bids.lesions.descriptors import DESCRIPTORS
from msnmo_bids.model.classification import LesionBranch
from msnmo_bids.model.inference import classify_lesions, predict
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import WeightsMetadata, save_weights


def test_the_branch_classifies_and_the_lesions_stay(tmp_path, tiny_config, monkeypatch):
    torch.manual_seed(0)
    metadata = WeightsMetadata("tiny", "1", cube_shape=(32, 32, 32), max_distance=2.0)
    save_weights(tmp_path / "old", JointNetwork(tiny_config), metadata, dtype="fp16")
    branch = LesionBranch(CONFIG)
    save_file(branch.state_dict(), tmp_path / "lesion_branch.safetensors")
    fit = {
        "classes": list(CLASSES), "descriptors": list(DESCRIPTORS), "fits": 1,
        "calibration": {"matrix": [[1, 0, 0], [0, 0.5, 0], [0, 0, 1]], "offset": [0, 0.1, 0]},
        "limits": {"MS": 0.9, "NMOSD": 0.95, "SVD": None},
    }  # fmt: skip
    (tmp_path / "diagnosis.json").write_text(json.dumps(fit))
    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    words = ["export", tmp_path, "--weights", old, "--version", "2", "--out", new]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    export_diagnosis.main()
    cube = np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32)
    assert np.array_equal(predict(cube, old).probability, predict(cube, new).probability)
    assert predict(cube, new).class_logits is None
    rows = np.random.default_rng(1).normal(size=(4, len(DESCRIPTORS))).astype(np.float32)
    found = classify_lesions(rows, new)
    wanted = branch(torch.from_numpy(rows))[0].detach().numpy()
    np.testing.assert_allclose(found.class_logits, wanted, atol=2e-2)  # fp16 in the file
    assert export_diagnosis.load_weights(new)[1].naming_limits == fit["limits"]
    assert export_diagnosis.load_weights(new)[1].max_distance == 2.0
