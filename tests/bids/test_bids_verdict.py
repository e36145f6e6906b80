"""A diagnosis is named only where nothing speaks against it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msnmo_bids.bids.verdict import INDETERMINATE, judge
from msnmo_bids.reports.wording import FLAGS

GOOD: dict[str, Any] = {
    "lesions": 3,
    "quality": {"Level": "green", "Reasons": []},
    "least": 0.8,
    "votes": ({"MS": 0.7, "NMOSD": 0.3}, {"MS": 0.95, "NMOSD": 0.05}),
    "distance": 1.2,
    "farthest": 1.5,
}
LIKELY = {"MS": 0.9, "NMOSD": 0.1}


def test_nothing_against_it() -> None:
    verdict = judge(LIKELY, **GOOD)
    assert (verdict.diagnosis, verdict.reason, verdict.flags) == ("MS", None, ())


@pytest.mark.parametrize(
    ("change", "flag", "words"),
    [
        ({"lesions": 0}, "no_lesion_found", "No lesion"),
        ({"least": 0.95}, "no_class_is_probable_enough", "0.95"),
        ({"votes": ({"MS": 0.4, "NMOSD": 0.6},)}, "networks_or_views_disagree", "1 of 1"),
        ({"distance": 1.6}, "unlike_the_training_scans", "1.60"),
        ({"quality": {"Level": "red", "Reasons": ["too dark"]}}, "quality_red", "too dark"),
    ],
)
def test_each_doubt_withholds_it(change: dict[str, Any], flag: str, words: str) -> None:
    verdict = judge(LIKELY, **(GOOD | change))
    assert verdict.diagnosis == INDETERMINATE
    assert words in (verdict.reason or "")
    assert verdict.flags == (flag,)
    assert flag in FLAGS


def test_amber_quality_and_an_unknown_distance_withhold_nothing() -> None:
    amber = {"Level": "amber", "Reasons": []}
    verdict = judge(LIKELY, **(GOOD | {"quality": amber, "distance": None}))
    assert (verdict.diagnosis, verdict.flags) == ("MS", ("quality_amber",))


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2), st.floats(0, 3))
def test_a_reason_is_given_exactly_where_none_is_named(
    ms: float, least: float, lesions: int, distance: float
) -> None:
    change = {"least": least, "lesions": lesions, "distance": distance, "votes": ()}
    verdict = judge({"MS": ms, "NMOSD": 1 - ms}, **(GOOD | change))
    assert (verdict.diagnosis == INDETERMINATE) == (verdict.reason is not None)
