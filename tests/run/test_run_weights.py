"""The weights that the command line asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msnmo_bids.errors import ExitCode
from msnmo_bids.model.weights import WeightsError, WeightsMetadata, find_weights
from msnmo_bids.settings import hash_file


def test_weights_must_be_there(tmp_path):
    with pytest.raises(WeightsError, match=r"missing\.safetensors.*--weights") as raised:
        find_weights(tmp_path / "missing.safetensors")
    assert raised.value.exit_code == ExitCode.INPUT_MISSING


@pytest.mark.parametrize("place", ["", ".", "/"])
def test_a_folder_is_no_weights_file(place):
    with pytest.raises(WeightsError, match="this is a folder") as raised:
        find_weights(Path(place))
    assert raised.value.exit_code == ExitCode.INPUT_MISSING


@pytest.mark.parametrize(
    ("tasks", "lacking"),
    [(["segmentation"], "classification"), (["classification"], "segmentation")],
)
def test_weights_without_a_task_are_refused_before_any_work(tmp_path, tasks, lacking):
    (tmp_path / "one.safetensors").touch()
    described = WeightsMetadata(
        "one", "1", configuration={"tasks": tasks}, sha256=hash_file(tmp_path / "one.safetensors")
    )
    (tmp_path / "one.json").write_text(json.dumps(described.to_dict()))
    with pytest.raises(WeightsError, match=f"trained without the {lacking} task"):
        find_weights(tmp_path / "one")


def test_a_branch_that_reads_other_descriptors_is_refused(tmp_path):
    (tmp_path / "old.safetensors").touch()
    described = WeightsMetadata(
        "old", "1", configuration={"lesion_descriptors": 2}, lesion_descriptors=("size", "place"),
        sha256=hash_file(tmp_path / "old.safetensors"),
    )  # fmt: skip
    (tmp_path / "old.json").write_text(json.dumps(described.to_dict()))
    with pytest.raises(WeightsError, match="reads other descriptors"):
        find_weights(tmp_path / "old.safetensors")
