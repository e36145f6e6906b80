"""A second network that confirms lesions."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from evidence import evidence_above
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from msnmo_bids.cli.weights import find_weights
from msnmo_bids.errors import ExitCode
from msnmo_bids.model.config import SEGMENTATION
from msnmo_bids.model.confirmation import Confirmation, Confirmer, keep_confirmed
from msnmo_bids.model.findings import FEATURES, describe_findings
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

_ASKED = Confirmation("second.safetensors", "0" * 64, evidence_above(0.25))
_MAPS = arrays(np.float32, (4, 5, 6), elements=st.floats(0, 1, width=32))


@given(first=_MAPS, second=_MAPS, level=st.floats(0.01, 0.99))
def test_only_findings_that_are_not_likely_enough_are_lowered(first, second, level):
    asked = replace(_ASKED, evidence=evidence_above(level))
    kept = keep_confirmed(first, second, first, threshold=0.6, confirmation=asked)
    assert kept.dtype == np.float32
    lesions, features = describe_findings(first, second, first, 0.6)
    np.testing.assert_array_equal(kept[lesions == 0], first[lesions == 0])
    chances = asked.evidence.chances(features)
    means = [second[lesions == number].mean() for number in range(1, len(chances) + 1)]
    # Near one half, the logit of a mean in single precision may have either sign.
    assume(all(abs(mean - 0.5) > 1e-3 for mean in means))
    trusted = np.array(means) > 0.5
    any_sure = (chances[trusted] > asked.sure_chance).any()
    for number, chance in enumerate(chances, start=1):
        voxels = lesions == number
        is_lesion = any_sure and trusted[number - 1] and chance > asked.least_chance
        factor = 1.0 if is_lesion else min(chance, asked.least_chance)
        np.testing.assert_allclose(kept[voxels], first[voxels] * factor, rtol=1e-5, atol=1e-12)


def test_a_lesion_keeps_its_whole_outline_when_it_is_likely_enough():
    first, second = np.zeros((2, 12, 3, 3), np.float32)
    first[1:5], first[7:11] = 0.9, 0.9
    second[1:4] = 0.9  # three quarters of one are above 0.7
    second[7:11] = 0.6  # and nothing of the other
    kept = keep_confirmed(first, second, first, threshold=0.6, confirmation=_ASKED)
    np.testing.assert_array_equal(kept[:6], first[:6])
    assert kept[7:11].max() < 0.1


@pytest.mark.parametrize(("other", "kept_too"), [(0.65, False), (0.95, True)])
def test_what_is_doubtful_is_a_lesion_only_beside_what_is_sure(other, kept_too):
    # The chance is the share of voxels that the second network is sure of, from 0.1 to 0.9.
    evidence = evidence_above(0.5)
    weights = np.array(evidence.weights) * 4e-4
    evidence = replace(evidence, weights=weights, intercept=evidence.intercept * 4e-4)
    asked = replace(_ASKED, evidence=evidence, least_chance=0.4, sure_chance=0.75)
    first, second = np.zeros((2, 12, 4, 4), np.float32)
    first[1:5], first[7:11] = 0.9, 0.9
    second[1:5] = 0.65
    second[1:3] = 0.95  # a half of the first finding is sure
    second[7:11] = other
    second[7:9] = 0.95
    features = describe_findings(first, second, first, 0.6).features
    chances = asked.evidence.chances(features)
    assert 0.4 < chances[0] < 0.75
    assert (chances[1] > 0.75) == kept_too
    kept = keep_confirmed(first, second, first, threshold=0.6, confirmation=asked)
    assert ((kept > 0.6) == (first > 0.6) * kept_too).all()


def test_what_is_sure_but_not_believed_is_no_anchor():
    asked = replace(_ASKED, evidence=evidence_above(0.25, "first"))
    first, second = np.zeros((2, 12, 4, 4), np.float32)
    first[1:5] = 0.9
    second[1:5] = 0.4
    kept = keep_confirmed(first, second, first, threshold=0.6, confirmation=asked)
    assert kept.max() < 0.6


def test_probabilities_must_have_one_shape():
    with pytest.raises(ValueError, match="shapes differ"):
        keep_confirmed(
            np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 3)), np.zeros((2, 2, 2)),
            threshold=0.5, confirmation=_ASKED,
        )  # fmt: skip


@pytest.mark.parametrize(("least", "sure"), [(0.0, 0.5), (0.5, 1.0), (0.5, 0.4)])
def test_the_chances_have_a_range(least, sure):
    with pytest.raises(ValueError, match="least_chance and sure_chance"):
        replace(_ASKED, least_chance=least, sure_chance=sure)


@pytest.mark.parametrize("name", ["means", "scales", "lowest", "highest", "weights"])
def test_evidence_has_a_number_for_each_feature(name):
    with pytest.raises(ValueError, match=f"{name} must be"):
        replace(_ASKED.evidence, **{name: (1.0,)})


def test_chances_are_those_of_the_regression_within_the_range_it_was_fitted_in():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, len(FEATURES)))
    made_up = replace(
        _ASKED.evidence,
        means=rng.normal(size=len(FEATURES)),
        scales=rng.uniform(1, 2, len(FEATURES)),
        weights=rng.normal(size=len(_ASKED.evidence.weights)),
        intercept=0.3,
        lowest=(-0.5,) * len(FEATURES),
        highest=(0.5,) * len(FEATURES),
    )
    x = (np.clip(features, -0.5, 0.5) - made_up.means) / made_up.scales
    squares = x[:, :, None] * x[:, None]
    pairs = squares[:, *np.triu_indices(len(FEATURES))]
    weights = np.array(made_up.weights)
    margin = x @ weights[: len(FEATURES)] + pairs @ weights[len(FEATURES) :] + 0.3
    np.testing.assert_allclose(made_up.chances(features), 1 / (1 + np.exp(-margin)))
    unknown, mean = features.copy(), features.copy()
    unknown[:, -1] = np.nan
    exact = replace(made_up, lowest=(-99.0,) * len(FEATURES), highest=(99.0,) * len(FEATURES))
    mean[:, -1] = exact.means[-1]
    np.testing.assert_allclose(exact.chances(unknown), exact.chances(mean))


@pytest.fixture
def pair(tmp_path, small_network, monkeypatch):
    """Weights and the ones that confirm their lesions: a network that only segments.

    Not trained, they find nothing that is likelier lesion than not.
    """
    monkeypatch.setattr("msnmo_bids.model.confirmation.believed", lambda f: f[:, 0] >= 0)
    second = JointNetwork(replace(small_network.config, tasks=(SEGMENTATION,)))
    shared = small_network.state_dict()
    second.load_state_dict({name: shared[name] for name in second.state_dict()})
    known = save_weights(tmp_path / "second", second, WeightsMetadata("second", "1"))
    # A threshold that leaves lesions of some size in the output of a network that is not trained.
    cube = torch.from_numpy(_cube())[None, None]
    with torch.no_grad():
        level = float(small_network(cube).lesion_probability.quantile(0.99))
    asked = Confirmation("second.safetensors", known.sha256, evidence_above(-99.0, "second"))
    metadata = WeightsMetadata("first", "1", threshold=level, confirmation=asked)
    save_weights(tmp_path / "first", small_network, metadata)
    return tmp_path / "first.safetensors", tmp_path / "second.safetensors"


def _cube() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((32, 32, 32)).astype(np.float32)


def _never(file):
    """Let no finding be confirmed."""
    _change(file, evidence=asdict(evidence_above(99.0, "second")))


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
    _never(first)
    alone = predict(_cube(), first)
    level = read_metadata(first).threshold
    assert (agreed.probability > level).any()
    assert not (alone.probability > level).any()
    below = agreed.probability <= level
    np.testing.assert_array_equal(alone.probability[below], agreed.probability[below])
    assert np.abs(alone.class_logits - agreed.class_logits).max() > 0


def test_the_mirror_image_is_confirmed_too(pair):
    first, _ = pair
    _never(first)
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


def test_a_finding_needs_more_from_the_second_network_where_there_is_little_else():
    """As the shipped weights judge it: a doubtful spot alone is rarely a lesion."""
    confirmation = read_metadata(default_weights_path()).confirmation
    sure = {"first": 3.5, "second": 4.0, "second_upper": 4.5}
    sure |= {"share_above_0.7": 1.0, "share_above_0.9": 1.0, "contrast": 1.5}
    white_matter = {"infratentorial": 0.0, "cortex": 0.05, "deep": 0.9}
    doubtful = {"first": 2.2, "second": 0.8, "second_upper": 3.0}
    doubtful |= {"share_above_0.7": 0.6, "share_above_0.9": 0.4, "contrast": 1.5}

    def chance(of, voxels, elsewhere):
        row = of | white_matter | {"size": np.log(voxels), "elsewhere": np.log(10 + elsewhere)}
        return float(confirmation.evidence.chances(np.array([[row[name] for name in FEATURES]]))[0])

    assert chance(doubtful, 100, 0) < confirmation.least_chance < chance(doubtful, 100, 20_000)
    for voxels in (100, 1000, 50_000):  # 0.2 to 100 ml
        for contrast in (1.0, 2.5):  # of dim and of bright lesions
            assert chance(sure | {"contrast": contrast}, voxels, 0) > confirmation.sure_chance
