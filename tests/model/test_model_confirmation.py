"""A second network that confirms lesions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from msnmo_bids.cli.weights import find_weights
from msnmo_bids.errors import ExitCode
from msnmo_bids.model.config import SEGMENTATION
from msnmo_bids.model.confirmation import Confirmation, Confirmer, keep_confirmed
from msnmo_bids.model.inference import load_confirmer, predict
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import (
    WeightsError,
    WeightsMetadata,
    confirming_weights,
    default_weights_path,
    load_weights_cached,
    read_metadata,
    save_weights,
)

_ASKED = Confirmation("second.safetensors", "0" * 64, share=0.25, threshold=0.5)
_MAPS = arrays(np.float32, (4, 5, 6), elements=st.floats(0, 1, width=32))


@given(first=_MAPS, second=_MAPS, share=st.floats(0.01, 1))
def test_only_lesions_that_are_not_confirmed_are_lowered(first, second, share):
    asked = replace(_ASKED, share=share)
    kept = keep_confirmed(first, second, threshold=0.6, confirmation=asked)
    assert kept.dtype == np.float32
    lesions, count = ndimage.label(first > 0.6, np.ones((3, 3, 3)))
    np.testing.assert_array_equal(kept[lesions == 0], first[lesions == 0])
    for number in range(1, count + 1):
        voxels = lesions == number
        found = np.mean(second[voxels] > 0.5)
        factor = 1.0 if found >= share else found
        np.testing.assert_allclose(kept[voxels], first[voxels] * factor, rtol=1e-5)


def test_a_lesion_keeps_its_whole_outline_when_a_quarter_of_it_is_confirmed():
    first, second = np.zeros((2, 12, 3, 3), np.float32)
    first[1:5], first[7:11] = 0.9, 0.9
    second[1], second[7, 0] = 0.9, 0.9  # a quarter of one lesion, a twelfth of the other
    kept = keep_confirmed(first, second, threshold=0.6, confirmation=_ASKED)
    np.testing.assert_array_equal(kept[:6], first[:6])
    assert 0 < kept[7:11].max() < 0.1


def test_probabilities_must_have_one_shape():
    with pytest.raises(ValueError, match="shapes differ"):
        keep_confirmed(
            np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 3)), threshold=0.5, confirmation=_ASKED
        )


@pytest.mark.parametrize(
    "wrong", [{"share": 0.0}, {"share": 1.1}, {"threshold": 0.0}, {"threshold": 1.0}]
)
def test_settings_of_a_confirmation_have_ranges(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(_ASKED, **wrong)


@pytest.fixture
def pair(tmp_path, small_network):
    """Weights and the ones that confirm their lesions: a network that only segments."""
    second = JointNetwork(replace(small_network.config, tasks=(SEGMENTATION,)))
    shared = small_network.state_dict()
    second.load_state_dict({name: shared[name] for name in second.state_dict()})
    known = save_weights(tmp_path / "second", second, WeightsMetadata("second", "1"))
    # A threshold that leaves lesions of some size in the output of a network that is not trained.
    cube = torch.from_numpy(_cube())[None, None]
    with torch.no_grad():
        level = float(small_network(cube).lesion_probability.quantile(0.99))
    asked = Confirmation("second.safetensors", known.sha256, share=0.25, threshold=0.01)
    metadata = WeightsMetadata("first", "1", threshold=level, confirmation=asked)
    save_weights(tmp_path / "first", small_network, metadata)
    return tmp_path / "first.safetensors", tmp_path / "second.safetensors"


def _cube() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((32, 32, 32)).astype(np.float32)


def _change(file, **entries):
    """Change what the description of weights says of the confirmation."""
    description = file.with_suffix(".json")
    content = json.loads(description.read_text(encoding="utf-8"))
    content["confirmation"] |= entries
    description.write_text(json.dumps(content), encoding="utf-8")
    load_weights_cached.cache_clear()


def test_a_second_network_that_agrees_changes_nothing(pair, small_network, tmp_path):
    first, _ = pair
    metadata = replace(read_metadata(first), confirmation=None)
    save_weights(tmp_path / "alone", small_network, metadata)
    alone, both = predict(_cube(), tmp_path / "alone.safetensors"), predict(_cube(), first)
    np.testing.assert_array_equal(both.probability, alone.probability)
    np.testing.assert_allclose(both.class_logits, alone.class_logits)


def test_lesions_that_the_second_network_does_not_see_are_gone_and_do_not_classify(pair):
    first, _ = pair
    agreed = predict(_cube(), first)
    _change(first, threshold=1 - 1e-9)
    alone = predict(_cube(), first)
    level = read_metadata(first).threshold
    assert (agreed.probability > level).any()
    assert not (alone.probability > level).any()
    below = agreed.probability <= level
    np.testing.assert_array_equal(alone.probability[below], agreed.probability[below])
    assert np.abs(alone.class_logits - agreed.class_logits).max() > 0


def test_the_mirror_image_is_confirmed_too(pair):
    first, _ = pair
    _change(first, threshold=1 - 1e-9)
    level = read_metadata(first).threshold
    assert not (predict(_cube(), first, tta=True).probability > level).any()


def test_the_confirmer_reads_the_volume_with_its_own_network(pair):
    first, second = pair
    confirmer = load_confirmer(first, read_metadata(first))
    assert isinstance(confirmer, Confirmer)
    image = torch.from_numpy(_cube())[None, None]
    with torch.inference_mode():
        own = confirmer.read(image)
    np.testing.assert_allclose(own[0, 0].numpy(), predict(_cube(), second).probability, atol=1e-6)
    assert load_confirmer(second, read_metadata(second)) is None


def test_the_fingerprint_knows_the_confirming_weights(pair):
    first, _ = pair
    before = read_metadata(first).fingerprint
    _change(first, sha256="1" * 64)
    assert read_metadata(first).fingerprint != before


def test_missing_or_other_confirming_weights_are_named(pair):
    first, second = pair
    metadata = read_metadata(first)
    assert confirming_weights(first, metadata) == second
    assert find_weights(first)[0] == first
    _change(first, sha256="1" * 64)
    with pytest.raises(WeightsError, match="not the weights that first 1 asks for") as other:
        find_weights(first)
    assert second.name in str(other.value)
    _change(first, sha256=metadata.confirmation.sha256)
    second.with_suffix(".json").unlink()
    with pytest.raises(WeightsError, match=r"second\.json") as missing:
        find_weights(first)
    assert missing.value.exit_code == ExitCode.INPUT_MISSING


def test_confirming_weights_take_the_same_cube(pair):
    first, second = pair
    metadata = replace(read_metadata(first), cube_shape=(96, 96, 96))
    with pytest.raises(WeightsError, match=r"take a cube of \(160, 160, 160\), not of"):
        confirming_weights(first, metadata)
    second.unlink()
    with pytest.raises(WeightsError, match="no weights here"):
        predict(_cube(), first)


def test_the_shipped_weights_confirm_their_lesions():
    shipped = default_weights_path()
    confirmer = load_confirmer(shipped, read_metadata(shipped))
    assert confirmer is not None
    assert confirmer.network.config.tasks == (SEGMENTATION,)
    assert confirming_weights(shipped, read_metadata(shipped)).stat().st_size < 12e6
