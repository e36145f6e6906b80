"""Bootstrap of subjects and paired tests, against brute force and other code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from msnmo_bids.evaluation.measures import (
    MIN_SUBJECTS,
    bootstrap_interval,
    delong_covariance,
    delong_test,
    subject_weights,
    weighted_mean,
    weighted_roc_area,
    wilcoxon_test,
)
from msnmo_bids.evaluation.report import holm


def names(count: int) -> list[str]:
    return [f"sub-{k:03}" for k in range(count)]


@given(st.lists(st.tuples(st.integers(0, 8), st.just(0)), min_size=1, max_size=25))
def test_a_draw_takes_all_scans_of_a_person_and_keeps_the_strata(rows):
    subjects = [f"sub-{person}" for person, _ in rows]
    strata = ["MS" if person % 3 else "NMOSD" for person, _ in rows]
    weights = subject_weights(subjects, strata, draws=20)
    for subject in set(subjects):
        own = weights[:, [s == subject for s in subjects]]
        assert (own == own[:, :1]).all()
    first = [subjects.index(subject) for subject in sorted(set(subjects))]
    for name in set(strata):
        of_stratum = [k for k in first if strata[k] == name]
        assert (weights[:, of_stratum].sum(axis=1) == len(of_stratum)).all()


def test_the_interval_of_a_mean_is_the_normal_one():
    rng = np.random.default_rng(0)
    values = rng.normal(0.7, 0.1, 400)
    found = bootstrap_interval(names(400), ["MS"] * 400, lambda w: weighted_mean(values, w))
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.003)
    assert found.high == pytest.approx(values.mean() + half, abs=0.003)


def test_repeated_scans_do_not_narrow_the_interval():
    """Ten copies of each scan say nothing more about other people."""
    values = np.random.default_rng(1).normal(size=30)
    once = bootstrap_interval(names(30), ["MS"] * 30, lambda w: weighted_mean(values, w))
    copies, subjects = np.repeat(values, 10), list(np.repeat(names(30), 10))
    often = bootstrap_interval(subjects, ["MS"] * 300, lambda w: weighted_mean(copies, w))
    assert (often.low, often.high) == pytest.approx((once.low, once.high))


def test_a_draw_without_scans_has_no_mean():
    weights = np.array([[1, 1], [0, 0], [2, 0]])
    np.testing.assert_allclose(weighted_mean(np.array([1.0, 3.0]), weights), [2, np.nan, 1])


@given(st.integers(0, 10_000))
def test_the_area_of_a_draw_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(12) % 3 == 0
    scores = rng.integers(0, 5, 12).astype(float)
    weights = rng.integers(0, 3, (4, 12))
    for found, row in zip(weighted_roc_area(labels, scores, weights), weights, strict=True):
        if row[labels].sum() and row[~labels].sum():
            expected = roc_auc_score(labels, scores, sample_weight=row)
            assert found == pytest.approx(expected)
        else:
            assert np.isnan(found)


def test_too_few_subjects_give_a_reason():
    few = MIN_SUBJECTS - 1
    values = np.arange(few, dtype=float)
    found = bootstrap_interval(names(few), ["MS"] * few, lambda w: weighted_mean(values, w))
    assert (found.low, found.high) == (None, None)
    for test in (
        wilcoxon_test(values, values + 1, names(few)),
        delong_test(values > 1, values, -values, names(few)),
        delong_test(np.zeros(0, bool), np.zeros(0), np.zeros(0), []),
    ):
        assert test.p is None
        assert "too few subjects" in test.reason + found.reason


def test_no_value_in_most_draws_gives_a_reason():
    labels = np.ones(10, bool)
    found = bootstrap_interval(
        names(10), ["MS"] * 10, lambda w: weighted_roc_area(labels, np.arange(10.0), w)
    )
    assert found.reason == "no value in too many draws"


def test_wilcoxon_is_scipys_on_subject_means():
    rng = np.random.default_rng(3)
    first, second = rng.uniform(size=(2, 24))
    second[:4] = first[:4]
    subjects = [f"sub-{k // 2:02}" for k in range(24)]
    difference = (first - second).reshape(12, 2).mean(axis=1)
    expected = stats.wilcoxon(difference, zero_method="pratt").pvalue
    found = wilcoxon_test(first, second, subjects)
    assert found.p == pytest.approx(expected)
    assert found.subjects == 12
    assert found.difference == pytest.approx(difference.mean())


def test_wilcoxon_leaves_out_what_one_model_lacks():
    first, second = np.arange(1.0, 11), np.zeros(10)
    second[7:] = np.nan
    found = wilcoxon_test(first, second, names(10))
    assert found.subjects == 7
    assert found.p == pytest.approx(2 / 2**7)


def test_equal_models_do_not_differ():
    values = np.linspace(0, 1, 10)
    assert wilcoxon_test(values, values, names(10)).p == 1
    assert delong_test(values > 0.4, values, values**2, names(10)).p == 1


def test_a_perfect_and_a_reversed_ranking_have_no_variance():
    values = np.linspace(0, 1, 10)
    found = delong_test(values > 0.4, values, -values, names(10))
    assert found.p is None
    assert found.difference == 1
    assert "no variance" in found.reason


def test_a_class_of_one_person_cannot_be_tested():
    labels = np.arange(10) == 3
    found = delong_test(labels, np.arange(10.0), -np.arange(10.0), names(10))
    assert found.reason == "fewer than two subjects of a class"


def scored(seed: int, count: int = 60, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and the correlated scores of two models."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3 == 0
    common = rng.normal(size=count)
    scores = np.stack([common + rng.normal(size=count) for _ in range(2)])
    scores[0] += skill * labels
    scores[1] += labels
    return labels, np.round(scores, 1)  # with ties


def test_delong_is_the_jackknife_of_each_class():
    """Leaving one person out changes the area by its structural component (Eq. 4 and 5)."""
    labels, scores = scored(0)
    areas, covariance = delong_covariance(labels, scores)
    np.testing.assert_allclose(areas, [roc_auc_score(labels, row) for row in scores])
    expected = np.zeros((2, 2))
    for members in (np.flatnonzero(labels), np.flatnonzero(~labels)):
        size = len(members)
        pseudo = [
            [
                size * area - (size - 1) * roc_auc_score(np.delete(labels, k), np.delete(row, k))
                for k in members
            ]
            for area, row in zip(areas, scores, strict=True)
        ]
        expected += np.cov(pseudo) / size
    np.testing.assert_allclose(covariance, expected)


def test_delongs_variance_is_about_that_of_a_bootstrap():
    labels, scores = scored(1, count=150)
    _, covariance = delong_covariance(labels, scores)
    weights = subject_weights(names(150), np.where(labels, "NMOSD", "MS"), draws=4000)
    drawn = np.stack([weighted_roc_area(labels, row, weights) for row in scores])
    np.testing.assert_allclose(np.cov(drawn), covariance, rtol=0.15)


def test_delong_finds_a_difference_and_keeps_its_level():
    apart = delong_test(*_split(scored(2, count=200, skill=4.0)), names(200))
    assert apart.p < 0.001
    assert apart.difference > 0.1
    p_values = [delong_test(*_split(scored(seed)), names(60)).p for seed in range(300)]
    assert np.mean(np.array(p_values) < 0.05) < 0.09
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.06)


def _split(found: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, scores = found
    return labels, scores[0], scores[1]


def test_delong_averages_the_scans_of_a_person():
    labels, scores = scored(4)
    subjects = names(60)
    once = delong_test(labels, *scores, subjects)
    doubled = delong_test(np.tile(labels, 2), *np.tile(scores, 2), subjects * 2)
    assert doubled.p == pytest.approx(once.p)
    assert doubled.subjects == 60


def test_holm():
    """By hand: the smallest times three, and never below the one before."""
    assert holm([0.04, 0.01, None, 0.03]) == pytest.approx([0.06, 0.03, None, 0.06])
    assert holm([None]) == [None]
    assert holm([]) == []
