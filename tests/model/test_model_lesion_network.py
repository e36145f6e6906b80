"""A network of its own for the lesions: its probability is the one that counts."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from msnmo_bids.errors import BadInputError, ExitCode
from msnmo_bids.model.config import SEGMENTATION
from msnmo_bids.model.inference import LesionModel, predict, resized
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import (
    LesionNetwork,
    WeightsError,
    WeightsMetadata,
    find_weights,
    hash_file,
    lesion_weights,
    load_weights_cached,
    read_metadata,
    save_weights,
)
from msnmo_bids.preprocessing.cube import array_to_cube

SHAPE = (32, 32, 32)


@pytest.fixture
def cubes():
    """A brain with a heavy load of lesions, z-scored and normalised robustly."""
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, (40, 44, 36)).astype(np.float32)
    image[10:20, 10:20, 10:20] += 80
    brain = np.zeros(image.shape, bool)
    brain[4:-4, 4:-4, 4:-4] = True
    kinds = ("z-score", "robust")
    return [array_to_cube(image, brain, (1, 1, 1), SHAPE, normalization=kind)[0] for kind in kinds]


@pytest.fixture
def joint(small_config):
    return JointNetwork(replace(small_config, pooling="lesion")).eval()


@pytest.fixture
def segmenting(small_config):
    return JointNetwork(replace(small_config, tasks=(SEGMENTATION,), sharing="local")).eval()


@pytest.fixture
def pair(tmp_path, joint, segmenting):
    """The joint network's weights, and those of the lesion network that they name."""
    load_weights_cached.cache_clear()
    other = WeightsMetadata("lesions", "1", cube_shape=SHAPE, normalization="robust")
    known = save_weights(tmp_path / "lesions", segmenting, other)
    asked = LesionNetwork("lesions.safetensors", known.sha256)
    metadata = WeightsMetadata("joint", "1", cube_shape=SHAPE, lesion_network=asked)
    save_weights(tmp_path / "joint", joint, metadata)
    return tmp_path / "joint.safetensors", tmp_path / "lesions.safetensors"


def rewrite(file, **changes):
    load_weights_cached.cache_clear()
    description = file.with_suffix(".json")
    content = json.loads(description.read_text(encoding="utf-8"))
    description.write_text(json.dumps(content | changes), encoding="utf-8")


@torch.no_grad()
def expected(joint, segmenting, cubes):
    """Return the lesion network's probability, and what the classifier makes of it."""
    z_scored, robust = (torch.from_numpy(cube)[None, None] for cube in cubes)
    probability = segmenting(robust).lesion_probability
    logits, _ = joint.forward_classification(joint.forward_features(z_scored), probability)
    return probability[0, 0].numpy(), logits[0].numpy()


def test_its_probability_is_the_result_and_is_what_the_classifier_reads(
    pair, joint, segmenting, cubes
):
    found = predict(cubes[0], pair[0])
    probability, logits = expected(joint, segmenting, cubes)
    np.testing.assert_allclose(found.probability, probability, atol=1e-4)
    np.testing.assert_allclose(found.class_logits, logits, atol=1e-4)
    with torch.no_grad():
        own = joint(torch.from_numpy(cubes[0])[None, None])
    assert np.abs(own.lesion_probability[0, 0].numpy() - probability).max() > 0.01
    assert np.abs(own.class_logits[0].numpy() - logits).max() > 0.001


def test_the_joint_networks_own_segmentation_does_not_count(pair, joint, cubes):
    before = predict(cubes[0], pair[0])
    with torch.no_grad():
        for parameter in joint.segmentation.parameters():
            parameter += 1.0
    save_weights(pair[0], joint, read_metadata(pair[0]))
    load_weights_cached.cache_clear()
    after = predict(cubes[0], pair[0])
    for name in ("probability", "cams", "class_logits"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_mirror_images_and_ensembles_read_it_too(pair, joint, cubes):
    first, _ = pair
    alone, mirrored = predict(cubes[0], first), predict(cubes[0][::-1], first)
    both = predict(cubes[0], first, tta=True)
    mean = (alone.probability + mirrored.probability[::-1]) / 2
    np.testing.assert_allclose(both.probability, mean, atol=1e-5)
    with torch.no_grad():
        joint.classification.head.weight += 1.0
    second = first.with_name("second.safetensors")
    save_weights(second, joint, read_metadata(first))
    found = predict(cubes[0], first, second)
    np.testing.assert_allclose(found.probability, alone.probability, atol=1e-6)
    logits = (alone.class_logits + predict(cubes[0], second).class_logits) / 2
    np.testing.assert_allclose(found.class_logits, logits, atol=1e-5)


def test_the_classifier_may_read_a_smaller_cube(pair, joint, segmenting):
    """Lesions are found on the whole cube; the classifier reads it resized, and CAMs come back."""
    first, other = pair
    shape = (48, 48, 48)
    rng = np.random.default_rng(1)
    inside = np.zeros(shape, bool)
    inside[6:-6, 6:-6, 6:-6] = True
    cube = np.where(inside, 5 + rng.normal(0, 1, shape), 0).astype(np.float32)
    rewrite(other, cube_shape=shape)
    rewrite(first, cube_shape=shape, input_shape=SHAPE)
    found = predict(cube, first)
    assert found.probability.shape == shape
    assert found.cams.shape == (2, *shape)
    alone = LesionModel.load(other).probability(torch.from_numpy(cube)[None, None])
    np.testing.assert_allclose(found.probability, alone[0, 0].detach().numpy(), atol=1e-5)
    small, _ = array_to_cube(cube, inside, (1, 1, 1), SHAPE, margin_mm=6.0)
    share = resized(alone, SHAPE).detach()
    with torch.no_grad():
        values = small * cube[inside].std() + 5 * (small != 0)
        scaled = torch.from_numpy(values.astype(np.float32))[None, None]
        logits, _ = joint.forward_classification(joint.forward_features(scaled), share)
    np.testing.assert_allclose(found.class_logits, logits[0].numpy(), atol=0.05)


def test_the_mean_of_both_networks_may_count(pair, joint, segmenting, cubes):
    first, _ = pair
    alone, _ = expected(joint, segmenting, cubes)
    content = json.loads(first.with_suffix(".json").read_text(encoding="utf-8"))
    rewrite(first, lesion_network=content["lesion_network"] | {"share": 0.25})
    found = predict(cubes[0], first)
    with torch.no_grad():
        image = torch.from_numpy(cubes[0])[None, None]
        own = joint(image).lesion_probability
        mean = 0.25 * torch.from_numpy(alone)[None, None] + 0.75 * own
        logits, _ = joint.forward_classification(joint.forward_features(image), mean)
    np.testing.assert_allclose(found.probability, mean[0, 0].numpy(), atol=1e-4)
    np.testing.assert_allclose(found.class_logits, logits[0].numpy(), atol=1e-4)
    with pytest.raises(ValueError, match="share must be above 0"):
        LesionNetwork("lesions.safetensors", "", 0.0)


def test_only_a_lesion_network_makes_two_shapes_possible():
    with pytest.raises(ValueError, match="needs a lesion network"):
        WeightsMetadata("joint", "1", input_shape=SHAPE)
    asked = LesionNetwork("lesions.safetensors", "")
    with pytest.raises(ValueError, match="input_shape must be three multiples of 16"):
        WeightsMetadata("joint", "1", input_shape=(30, 32, 32), lesion_network=asked)


def test_bfloat16_is_close(pair, cubes):
    exact, rough = predict(cubes[0], pair[0]), predict(cubes[0], pair[0], precision="bf16")
    assert np.abs(exact.probability - rough.probability).mean() < 0.01
    np.testing.assert_allclose(exact.class_logits, rough.class_logits, atol=0.05)


def test_every_network_sees_its_own_normalisation(pair, joint, cubes):
    """The joint one as well, without a lesion network."""
    alone = pair[0].with_name("alone.safetensors")
    save_weights(alone, joint, WeightsMetadata("alone", "1", normalization="robust"))
    found = predict(cubes[0], alone)
    with torch.no_grad():
        wanted = joint(torch.from_numpy(cubes[1])[None, None])
    np.testing.assert_allclose(
        found.probability, wanted.lesion_probability[0, 0].numpy(), atol=1e-4
    )
    np.testing.assert_allclose(found.class_logits, wanted.class_logits[0].numpy(), atol=1e-4)


def test_a_brain_that_cannot_be_normalised_is_bad_input(pair):
    cube = np.ones(SHAPE, np.float32)
    cube[:4] = -7.0
    with pytest.raises(BadInputError, match=r"same intensity everywhere.*Check the brain mask"):
        predict(cube, pair[0])


def test_it_is_found_before_a_run_starts(pair):
    first, other = pair
    assert lesion_weights(first, read_metadata(first)) == other
    assert lesion_weights(other, read_metadata(other)) is None
    assert find_weights(first)[0] == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "1" * 64}, "not the weights that joint 1 asks for"),
        ({"cube_shape": [64, 64, 64]}, r"take a cube of \(64, 64, 64\), not of \(32, 32, 32\)"),
        ({"configuration": {}}, "has the segmentation task, and no other"),
        ({"lesion_network": {"file": "x", "sha256": ""}}, "has the segmentation task, and no"),
    ],
)
def test_weights_that_cannot_be_a_lesion_network(pair, cubes, changes, message):
    first, other = pair
    rewrite(other, **changes)
    for use in (lambda: find_weights(first), lambda: predict(cubes[0], first)):
        with pytest.raises(WeightsError, match=message) as caught:
            use()
        assert str(other) in str(caught.value)


def test_damaged_or_missing_files_are_named(pair, cubes):
    first, other = pair
    content = bytearray(other.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    assert hash_file(other) != read_metadata(other).sha256
    with pytest.raises(WeightsError, match=r"lesions\.safetensors: the weights are damaged"):
        predict(cubes[0], first)
    other.unlink()
    with pytest.raises(WeightsError, match="no weights here"):
        predict(cubes[0], first)
    other.with_suffix(".json").unlink()
    with pytest.raises(WeightsError, match=r"lesions\.json") as missing:
        find_weights(first)
    assert missing.value.exit_code == ExitCode.INPUT_MISSING
