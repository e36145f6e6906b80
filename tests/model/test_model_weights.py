"""Weights: round trip, and every way in which two files can fail to be weights."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from dev.leave_one_source_out import CRITERIA
from msnmo_bids.model.calibration import Calibration
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import (
    SHIPPED_WEIGHTS,
    WeightsError,
    WeightsMetadata,
    find_weights,
    load_weights,
    load_weights_cached,
    read_metadata,
    save_weights,
)
from msnmo_bids.settings import hash_file


@pytest.fixture
def saved(tmp_path, small_network):
    metadata = WeightsMetadata(
        "small",
        "1.0",
        calibration=Calibration(2.0, "temperature scaling", "held-out folds"),
        trained_on=("simulated lesions (CC0)",),
    )
    metadata = save_weights(tmp_path / "small-v1.0", small_network, metadata)
    return tmp_path / "small-v1.0.safetensors", metadata


def rewrite(path, **changes):
    description = path.with_suffix(".json")
    content = json.loads(description.read_text(encoding="utf-8"))
    description.write_text(json.dumps(content | changes), encoding="utf-8")


def test_the_fingerprint_tells_what_changes_the_derivatives(saved):
    path, metadata = saved
    assert read_metadata(path).fingerprint == metadata.fingerprint
    for changes in (
        {"threshold": 0.7},
        {"calibration": Calibration(3.0)},
        {"naming_limits": {"MS": 0.6}},
        {"cube_shape": (64, 64, 64)},
        {"sha256": "0" * 64},
        {"normalization": "robust"},
        {"lesion_descriptors": ("size",)},
    ):
        assert replace(metadata, **changes).fingerprint != metadata.fingerprint, changes


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 0), ("fp16", 1e-3), ("bf16", 1e-2)])
def test_round_trip(tmp_path, small_network, dtype, tolerance):
    path = tmp_path / "deep" / "network.safetensors"
    written = save_weights(path, small_network, WeightsMetadata("n", "1"), dtype=dtype)
    network, metadata = load_weights(path)
    assert metadata == written == read_metadata(path.with_suffix(".json"))
    assert metadata.sha256 == hash_file(path)
    assert metadata.dtype == dtype
    assert network.config == small_network.config
    assert not network.training
    again = network.state_dict()
    for name, value in small_network.state_dict().items():
        assert again[name].dtype == torch.float32
        torch.testing.assert_close(again[name], value, rtol=tolerance, atol=tolerance)
    image = torch.randn(1, 1, 32, 32, 32)
    expected = small_network(image).class_logits
    torch.testing.assert_close(network(image).class_logits, expected, rtol=0.05, atol=0.05)


def test_metadata_travels(saved):
    path, metadata = saved
    assert read_metadata(path) == metadata
    assert metadata.calibration.temperature == 2
    assert metadata.normalization == "z-score"
    assert metadata.cube_shape == (160, 160, 160)
    assert metadata.trained_on == ("simulated lesions (CC0)",)


def test_dots_in_a_name_are_no_suffix(saved):
    path, _ = saved
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "small-v1.0.json",
        "small-v1.0.safetensors",
    ]


@pytest.mark.parametrize("name", ["small-v1.0.safetensors", "small-v1.0.json"])
def test_missing_files(saved, name):
    path, _ = saved
    (path.parent / name).unlink()
    with pytest.raises(WeightsError, match=rf"{name}: .*Get the two files"):
        load_weights(path)


def test_tampered_tensors(saved):
    path, _ = saved
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"small-v1\.0\.safetensors: the weights are damaged"):
        load_weights(path)


def test_a_pickle_is_refused_and_not_opened(saved):
    path, _ = saved
    path.write_bytes(pickle.dumps(_Bomb()))
    rewrite(path, sha256=hash_file(path))
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_weights(path)


class _Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the weights were unpickled",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"configuration": {"windows": 5}}, "unexpected keyword argument 'windows'"),
        ({"configuration": {"sharing": "five"}}, "configuration of the weights is not valid"),
        ({"class_names": ["MS", "HC"]}, "not those of the configuration"),
        ({"colour": "red"}, "unknown or of a wrong type.*'colour'"),
        ({"threshold": 2.0}, "threshold must be between"),
        ({"calibration": {"temperature": 0.0}}, "temperature must be above 0"),
        ({"calibration": {"warmth": 1.0}}, "not a valid description"),
        (
            {
                "class_names": ["MS", "NMOSD", "HC"],
                "calibration": {"matrix": [[1, 0], [0, 1]], "offset": [0, 0]},
            },
            "is for 2 classes, not for MS, NMOSD, HC",
        ),
        ({"cube_shape": [100, 160, 160]}, "three multiples of 16"),
        ({"min_lesion_volume": -1}, "min_lesion_volume must be"),
        ({"normalization": "by hand"}, "normalization must be z-score or robust, not 'by hand'"),
        ({"naming_limits": {"MS": 1.5}}, "naming_limits must be"),
        ({"naming_limits": {"NMO": 0.5}}, "naming_limits must be"),
        ({"format_version": 99}, "reads format_version 3, not 99"),
        ({"format_version": 2}, "not 2. Use the version of the program that the weights came with"),
        ({"threshold": "half"}, "not a valid description"),
    ],
)
def test_wrong_descriptions(saved, changes, message):
    path, _ = saved
    rewrite(path, **changes)
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(path)
    assert str(path.with_suffix(".json")) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_broken_descriptions(saved, text):
    path, _ = saved
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match="not a valid description"):
        read_metadata(path)


def test_another_configuration_than_the_tensors(saved, small_config):
    path, _ = saved
    for changes, problem in (
        ({"sharing": "local"}, "not expected"),
        ({"sharing": "none"}, "are missing"),
        ({"shared_channels": 16, "embedding_channels": 16}, "another shape"),
    ):
        rewrite(path, configuration=replace(small_config, **changes).to_dict())
        with pytest.raises(WeightsError, match=problem):
            load_weights(path)


def test_a_missing_tensor_is_named(saved):
    path, _ = saved
    tensors = load_file(path)
    del tensors["classification.head.bias"]
    save_file(tensors, path)
    rewrite(path, sha256=hash_file(path))
    with pytest.raises(WeightsError, match=r"are missing .* classification\.head\.bias \(1 in all"):
        load_weights(path)


def test_tensors_are_stored_as_the_description_says(saved):
    path, _ = saved
    rewrite(path, dtype="fp16")
    with pytest.raises(WeightsError, match="are not fp16"):
        load_weights(path)
    rewrite(path, dtype="int8")
    with pytest.raises(WeightsError, match="dtype must be one of"):
        load_weights(path)


def test_saving_refuses_what_cannot_be_read_back(tmp_path, small_network):
    with pytest.raises(ValueError, match="dtype must be one of"):
        save_weights(tmp_path / "n", small_network, WeightsMetadata("n", "1"), dtype="int8")
    with pytest.raises(ValueError, match="are not the network's"):
        save_weights(tmp_path / "n", small_network, WeightsMetadata("n", "1", ("MS", "HC")))
    small_network.classification.head.bias.data[0] = 1e6
    with pytest.raises(ValueError, match="store the weights as fp32"):
        save_weights(tmp_path / "n", small_network, WeightsMetadata("n", "1"), dtype="fp16")
    assert list(tmp_path.iterdir()) == []


def test_saved_batch_statistics_come_back(tmp_path, small_config):
    network = JointNetwork(replace(small_config, segmentation_normalization="batch"))
    network(torch.randn(2, 1, 32, 32, 32))
    save_weights(tmp_path / "n", network, WeightsMetadata("n", "1"), dtype="fp16")
    state = load_weights(tmp_path / "n")[0].state_dict()
    counts = [value for name, value in state.items() if name.endswith("num_batches_tracked")]
    assert counts
    assert all(count == 1 and count.dtype == torch.int64 for count in counts)


def test_cache_loads_once(saved):
    path, _ = saved
    load_weights_cached.cache_clear()
    network, _ = load_weights_cached(path, "cpu", "fp32")
    assert load_weights_cached(path, "cpu", "fp32")[0] is network
    assert not any(value.requires_grad for value in network.parameters())
    half, _ = load_weights_cached(path, "cpu", "bf16")
    assert half.segmentation.encoders[0][0][0].weight.dtype == torch.bfloat16
    assert half.classification.head.weight.dtype == torch.float32


def test_error_is_a_value_error_that_survives_pickling():
    error = WeightsError("broken", file="a.safetensors", remedy="Get it again")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ValueError)
    assert str(again) == "a.safetensors: broken. Get it again"


def test_the_shipped_weights_are_those_that_their_description_says():
    network, metadata = load_weights(SHIPPED_WEIGHTS)
    assert find_weights(SHIPPED_WEIGHTS) == (SHIPPED_WEIGHTS, metadata)
    assert metadata.criteria == CRITERIA
    assert network.config.segments
    assert metadata.classifies_lesions
