"""Leave-one-source-out: a tested source decides on nothing, and a person counts once."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from dev.leave_one_source_out import (
    FoldResult,
    score,
    score_steps,
    summarise,
    visit_ratios,
)
from dev.pictures import disagreeing_slices
from dev.sources import SOURCES, labelled_data, person_of, source_of

DATA = Path(os.environ.get("MSNMO_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))


def result(source: str, person: str, level: float) -> FoldResult:
    """Return a scan whose lesion has a probability, beside a speck."""
    rng = np.random.default_rng(0)
    truth = np.zeros((12, 12, 12), np.uint8)
    truth[3:7, 3:7, 3:7] = 1
    probability = np.where(truth, level, 0.02 + 0.01 * rng.random(truth.shape))
    probability[10, 10, 10] = 0.9
    scan = SimpleNamespace(name=f"{source}/{person}", person=(source, person))
    return FoldResult(scan, source, probability.astype(np.float32), truth, (1.0, 1.0, 1.0))


def test_a_person_under_two_labels_counts_once() -> None:
    one, other = (
        result("ds-ms3seg-labelled", label, level) for label, level in [("03", 0.95), ("05", 0.1)]
    )
    lone = result("ds-ms3seg-labelled", "04", 0.95)
    rows = pd.DataFrame([score(each) for each in (one, other, lone)])
    summary = summarise(rows)
    assert (summary["people"], summary["scans"]) == (2, 3)
    assert summary["dsc"] == pytest.approx((0.5 + 1) / 2)


def test_what_each_step_is_worth_is_told() -> None:
    """A lesion of .62 is found by the criteria; the speck of one voxel is dropped by size."""
    steps = score_steps([result("a", "01", 0.62), result("b", "02", 0.62)])
    found = {name: set(rows["dsc"].round(9)) for name, rows in steps.items()}
    with_speck = {round(2 * 64 / (64 + 65), 9)}
    assert found["threshold 0.5 alone"] == with_speck
    assert (
        found["threshold 0.5, smallest lesion 10 mm³"]
        == found["threshold 0.6, smallest lesion 10 mm³"]
        == {1.0}
    )
    assert found["threshold 0.7, smallest lesion 10 mm³"] == {0.0}


def test_a_person_counts_once_however_many_visits() -> None:
    rows = pd.DataFrame(
        {
            "source": ["a", "a", "a", "b"],
            "person": ["a/1", "a/1", "a/1", "b/1"],
            "scan": ["1", "2", "3", "4"],
            "dsc": [0.9, 0.9, 0.9, 0.5],
            "lesion_f1": [1.0, 1.0, 1.0, 0.0],
            "tpr": [0.8, 0.8, 0.8, 0.1],
            "true_volume_ml": [30.0, 30.0, 30.0, 1.0],
            "predicted_volume_ml": [30.0, 70.0, 14.0, 1.0],
        }
    )
    found = summarise(rows)
    assert found["dsc"] == pytest.approx(0.7)
    assert found["lesion_f1"] == pytest.approx(0.5)
    assert found["volume_between_half_and_twice"] == 2
    assert found["sensitivity_above_20_ml"] == pytest.approx(0.8)
    assert found["worst"] == {"scan": "4", "dsc": 0.5}


def test_nobody_is_in_two_sources() -> None:
    with pytest.raises(KeyError, match="ds-clinical-labelled/sub-99"):
        source_of("ds-clinical-labelled", "99")
    named = [
        (dataset, who)
        for people in SOURCES.values()
        for dataset in people
        for who in people[dataset]
    ]
    assert len(named) == len(set(named))


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data in {DATA}")
def test_sixteen_people_of_four_sources() -> None:
    scans = labelled_data(DATA).scans
    people = {person_of(*scan.person) for scan in scans}
    assert (len(scans), len(people)) == (19, 16)
    assert Counter(source_of(*person) for person in people) == {
        "1.5T": 9,
        "ljubljana": 3,
        "site-b": 3,
        "mslesseg": 1,
    }


def test_ratios_of_visits_are_those_of_found_to_true_volume() -> None:
    rows = pd.DataFrame(
        {
            "scan": ["p_ses-2", "p_ses-1", "q"],
            "person": ["p", "p", "q"],
            "true_volume_ml": [30.0, 20.0, 5.0],
            "predicted_volume_ml": [30.0, 10.0, 1.0],
        }
    )
    assert visit_ratios(rows) == {"p_ses-2": pytest.approx(2.0)}


def test_slices_are_those_where_the_masks_differ_most() -> None:
    truth, found = np.zeros((2, 8, 8, 64), bool)
    truth[2:5, 2:5, 10] = True
    found[2:4, 2:4, 40] = True
    found[2, 2, 41] = True  # too near to be shown beside 40
    assert disagreeing_slices(truth, found) == [40, 10]
    assert disagreeing_slices(truth, found, 1) == [10]
    assert disagreeing_slices(truth, truth) == []
