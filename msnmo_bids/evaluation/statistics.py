"""Intervals by a bootstrap of the subjects, and paired tests between two models.

Scans of one person are not independent: a draw takes all of them or none, and the tests work on
one value per person (the mean of the scans).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: With fewer people an interval or a test says nothing.
MIN_SUBJECTS = 6
DRAWS = 2000
LEVEL = 0.95
_UNDEFINED_SHARE = 0.05  # of the draws may be without a value


@dataclass(frozen=True)
class Interval:
    """A confidence interval; where its ends are None, the reason."""

    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Test:
    """A paired, two-sided test over ``subjects``, people with a value of both models.

    ``difference`` is first model minus second, of the mean (DSC) or of the area (AUC). Where p is
    None, ``reason`` says why.
    """

    __test__ = False  # for pytest

    p: float | None = None
    subjects: int = 0
    difference: float | None = None
    reason: str = ""


def too_few(people: int) -> str:
    """Say that an interval or a test needs more people; empty where there are enough."""
    if people >= MIN_SUBJECTS:
        return ""
    return f"too few subjects: {people}, at least {MIN_SUBJECTS} needed"


def subject_weights(
    subjects: Sequence[str], strata: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """Draw people with replacement, within each stratum.

    Parameters
    ----------
    subjects, strata : sequence of str, (N,)
        Person and diagnosis of each scan; the diagnosis of a person's first scan counts.
    draws, seed : int, optional
        Number of draws; equal seeds give equal draws.

    Returns
    -------
    ndarray of int, (draws, N)
        How often each scan is in each draw: all scans of a person equally often, and in every draw
        as many people of each stratum as there are.
    """
    people, first, person_of_scan = np.unique(
        np.asarray(subjects, dtype=str), return_index=True, return_inverse=True
    )
    stratum = np.asarray(strata, dtype=str)[first]
    counts = np.zeros((draws, people.size), dtype=np.int64)
    rng = np.random.default_rng(seed)
    for name in np.unique(stratum):
        members = np.flatnonzero(stratum == name)
        share = np.full(members.size, 1 / members.size)
        counts[:, members] = rng.multinomial(members.size, share, size=draws)
    return counts[:, person_of_scan.ravel()]


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of the values (N,) in each draw (draws,), NaN where a draw has none.

    Scans whose value is NaN are left out; the weights (draws, N) are of `subject_weights`.
    """
    valid = ~np.isnan(values)
    total = weights[:, valid].sum(axis=1)
    summed = weights[:, valid] @ values[valid]
    return np.divide(summed, total, out=np.full(len(weights), np.nan), where=total > 0)


def weighted_roc_area(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve in each draw, (draws,); NaN where it has one class only.

    `labels` (N,) are true for the positive class, `scores` (N,) larger for it; the weights
    (draws, N) are of `subject_weights`.
    """
    positive, negative = weights[:, labels].astype(float), weights[:, ~labels].astype(float)
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    won = ((positive @ _wins(scores[labels], scores[~labels])) * negative).sum(axis=1)
    return np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def bootstrap_interval(
    subjects: Sequence[str],
    strata: Sequence[str],
    statistic: Callable[[np.ndarray], np.ndarray],
    *,
    draws: int = DRAWS,
) -> Interval:
    """Return a percentile interval (coverage: `LEVEL`) of a bootstrap of the subjects.

    `subjects` and `strata` (N,) are those of the scans that have a value, as for `subject_weights`;
    `statistic` goes from weights (draws, N) to values (draws,). The interval has no ends when there
    are fewer than `MIN_SUBJECTS` people.
    """
    if reason := too_few(len(set(subjects))):
        return Interval(reason=reason)
    values = statistic(subject_weights(subjects, strata, draws=draws))
    undefined = np.isnan(values)
    if undefined.mean() > _UNDEFINED_SHARE:
        return Interval(reason="no value in too many draws")
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(values[~undefined], [tail, 100 - tail])
    return Interval(float(low), float(high))


def wilcoxon_test(first: np.ndarray, second: np.ndarray, subjects: Sequence[str]) -> Test:
    """Test whether two models differ in a metric such as DSC: Wilcoxon's signed-rank test.

    Equal values are ranked and then left out (Pratt 1959); p = 1 where all are equal. Several scans
    of a person are averaged. `first` and `second` (N,) are the metric of each scan, NaN: n/a.
    """
    from scipy.stats import wilcoxon

    valid = ~(np.isnan(first) | np.isnan(second))
    people = np.asarray(subjects, dtype=str)[valid]
    difference = _subject_means((first - second)[valid], people)
    if reason := too_few(difference.size):
        return Test(subjects=difference.size, reason=reason)
    mean = float(difference.mean())
    difference = np.where(np.abs(difference) < 1e-12, 0.0, difference)
    if not difference.any():
        return Test(1.0, difference.size, mean)
    p = float(wilcoxon(difference, zero_method="pratt").pvalue)
    return Test(p, difference.size, mean)


def delong_test(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, subjects: Sequence[str]
) -> Test:
    """Test whether the areas under two ROC curves of the same people differ (DeLong et al. 1988).

    Several scans of a person are averaged: the test takes the people for independent. `labels` (N,)
    are true for the positive class, `first` and `second` (N,) the scores of each scan, NaN: n/a.
    p = 1 where both models rank alike; there is none when a class has fewer than two people.
    """
    from scipy.stats import norm

    valid = ~(np.isnan(first) | np.isnan(second))
    people = np.asarray(subjects, dtype=str)[valid]
    truth = _subject_means(labels[valid].astype(float), people) > 0.5
    if reason := too_few(truth.size):
        return Test(subjects=truth.size, reason=reason)
    if min(truth.sum(), (~truth).sum()) < 2:
        return Test(subjects=truth.size, reason="fewer than two subjects of a class")
    scores = np.stack([_subject_means(values[valid], people) for values in (first, second)])
    areas, covariance = delong_covariance(truth, scores)
    difference = float(areas[0] - areas[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance < 1e-15:
        if abs(difference) < 1e-12:
            return Test(1.0, truth.size, difference)
        return Test(None, truth.size, difference, "no variance: one model ranks without an error")
    p = float(2 * norm.sf(abs(difference) / np.sqrt(variance)))
    return Test(p, truth.size, difference)


def delong_covariance(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return areas under ROC curves, (M,), and their covariance, (M, M) (DeLong et al. 1988).

    `labels` (N,) are true for the positive class, with at least two people of either; `scores`
    (M, N) are of M models. The covariance is S10 / m + S01 / n of the paper's Eq. 5.
    """
    wins = np.stack([_wins(row[labels], row[~labels]) for row in scores])
    of_positives, of_negatives = wins.mean(axis=2), wins.mean(axis=1)
    covariance = np.cov(of_positives) / of_positives.shape[1]
    covariance = covariance + np.cov(of_negatives) / of_negatives.shape[1]
    return wins.mean(axis=(1, 2)), np.atleast_2d(covariance)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct a family of tests by Holm's method; tests that were not made do not count.

    Examples
    --------
    >>> holm([0.01, None, 0.04])
    [0.02, None, 0.04]
    """
    from statsmodels.stats.multitest import multipletests

    made = [p for p in p_values if p is not None]
    if not made:
        return list(p_values)
    corrected = iter(multipletests(made, method="holm")[1])
    return [None if p is None else float(next(corrected)) for p in p_values]


def _wins(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Compare every positive with every negative: 1 larger, 0.5 equal, 0 smaller."""
    return (np.sign(positive[:, None] - negative[None, :]) + 1) / 2


def _subject_means(values: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """Average the scans of each person, in the order of the names."""
    _, person = np.unique(subjects, return_inverse=True)
    if not values.size:
        return values
    return np.bincount(person.ravel(), weights=values) / np.bincount(person.ravel())
