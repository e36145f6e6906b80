"""A diagnosis is named only where nothing speaks against it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msnmo_bids.decision import INDETERMINATE, decide
from msnmo_bids.vocabulary import FLAGS

GOOD: dict[str, Any] = {
    "lesions": 3,
    "quality": {"Level": "green", "Reasons": []},
    "limits": {"MS": 0.8, "NMOSD": 0.8},
    "distance": 1.2,
    "farthest": 1.5,
}
LIKELY = {"MS": 0.9, "NMOSD": 0.1}


def test_nothing_against_it() -> None:
    decision = decide(LIKELY, **GOOD)
    assert (decision.diagnosis, decision.reason, decision.flags) == ("MS", None, ())


@pytest.mark.parametrize(
    ("change", "flag", "words"),
    [
        ({"lesions": 0}, "no_lesion_found", "No lesion"),
        ({"limits": {"MS": 0.95}}, "no_class_is_probable_enough", "0.95"),
        ({"limits": {"MS": None}}, "no_class_is_probable_enough", "never name MS"),
        ({"distance": 1.6}, "unlike_the_training_scans", "1.60"),
        ({"quality": {"Level": "red", "Reasons": ["too dark"]}}, "quality_red", "too dark"),
    ],
)
def test_each_doubt_withholds_it(change: dict[str, Any], flag: str, words: str) -> None:
    decision = decide(LIKELY, **(GOOD | change))
    assert decision.diagnosis == INDETERMINATE
    assert words in (decision.reason or "")
    assert decision.flags == (flag,)
    assert flag in FLAGS


def test_a_limit_holds_for_its_own_class() -> None:
    limits = {"MS": 0.95, "NMOSD": 0.6}
    unlikely = {"MS": 0.3, "NMOSD": 0.7}
    assert decide(unlikely, **(GOOD | {"limits": limits})).diagnosis == "NMOSD"
    assert decide(LIKELY, **(GOOD | {"limits": limits})).diagnosis == INDETERMINATE
    assert decide(LIKELY, **(GOOD | {"limits": {"NMOSD": None}})).diagnosis == "MS"


@pytest.mark.parametrize("limits", [{"SVD": None}, {}, {"SVD": 0.6}])
def test_what_looks_like_a_disease_is_not_named(limits) -> None:
    old = {"MS": 0.2, "NMOSD": 0.1, "SVD": 0.7}
    decision = decide(old, **(GOOD | {"limits": limits}))
    assert decision.diagnosis == INDETERMINATE
    assert "look too much like age-related small-vessel disease" in (decision.reason or "")
    assert decision.flags == ("no_class_is_probable_enough",)


def test_a_disease_is_named_by_its_share_of_the_diseases_and_beside_little_that_looks_alike() -> (
    None
):
    limits = {"MS": 0.9, "NMOSD": None, "SVD": 0.3}
    given = GOOD | {"limits": limits}
    assert decide({"MS": 0.7, "NMOSD": 0.02, "SVD": 0.28}, **given).diagnosis == "MS"
    unsure = decide({"MS": 0.72, "NMOSD": 0.18, "SVD": 0.1}, **given)
    assert unsure.diagnosis == INDETERMINATE
    assert "MS has 0.800 of what MS and NMOSD score together" in (unsure.reason or "")
    assert "0.9" in (unsure.reason or "")
    assert decide({"MS": 0.64, "NMOSD": 0.01, "SVD": 0.35}, **given).diagnosis == INDETERMINATE
    more = given | {"limits": limits | {"SVD": 0.4}}
    assert decide({"MS": 0.64, "NMOSD": 0.01, "SVD": 0.35}, **more).diagnosis == "MS"
    never = decide({"MS": 0.0, "NMOSD": 1.0, "SVD": 0.0}, **given)
    assert "never name NMOSD" in (never.reason or "")
    both = decide({"MS": 0.1, "NMOSD": 0.5, "SVD": 0.4}, **given).reason or ""
    assert both.index("never name NMOSD") < both.index("look too much like")


def test_amber_quality_and_an_unknown_distance_withhold_nothing() -> None:
    amber = {"Level": "amber", "Reasons": []}
    decision = decide(LIKELY, **(GOOD | {"quality": amber, "distance": None}))
    assert (decision.diagnosis, decision.flags) == ("MS", ("quality_amber",))


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2), st.floats(0, 3))
def test_a_reason_is_given_exactly_where_none_is_named(
    ms: float, least: float, lesions: int, distance: float
) -> None:
    change = {"limits": {"MS": least}, "lesions": lesions, "distance": distance}
    decision = decide({"MS": ms, "NMOSD": 1 - ms}, **(GOOD | change))
    assert (decision.diagnosis == INDETERMINATE) == (decision.reason is not None)


@given(st.lists(st.floats(1e-9, 1), min_size=2, max_size=4))
def test_rounded_probabilities_add_up_to_one(shares: list[float]) -> None:
    given = {f"class {k}": share / sum(shares) for k, share in enumerate(shares)}
    found = decide(given, **GOOD).probabilities
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    assert all(abs(found[name] - value) < 1e-5 for name, value in given.items())


def test_three_classes_are_decided_on_like_two() -> None:
    likely = {"MS": 0.05, "NMOSD": 0.9, "healthy": 0.05}
    assert decide(likely, **GOOD).diagnosis == "NMOSD"
    least = GOOD | {"limits": {"NMOSD": 0.97}}
    assert decide(likely, **least).diagnosis == INDETERMINATE
