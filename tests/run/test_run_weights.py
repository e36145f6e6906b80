"""The weights that the command line asks for."""

from __future__ import annotations

import json

import pytest

from msnmo_bids.errors import ExitCode
from msnmo_bids.model.weights import WeightsError, WeightsMetadata, find_weights
from msnmo_bids.settings import hash_file


def test_weights_must_be_there(tmp_path):
    with pytest.raises(WeightsError, match=r"missing\.safetensors.*--weights") as raised:
        find_weights(tmp_path / "missing.safetensors")
    assert raised.value.exit_code == ExitCode.INPUT_MISSING


def test_a_branch_that_reads_other_descriptors_is_refused(tmp_path):
    (tmp_path / "old.safetensors").touch()
    described = WeightsMetadata(
        "old", "1", configuration={"lesion_descriptors": 2}, lesion_descriptors=("size", "place"),
        sha256=hash_file(tmp_path / "old.safetensors"),
    )  # fmt: skip
    (tmp_path / "old.json").write_text(json.dumps(described.to_dict()))
    with pytest.raises(WeightsError, match="reads other descriptors"):
        find_weights(tmp_path / "old.safetensors")
