"""Measures of a model over folds, scans and sites, with intervals, and tests between two models.

Scans of one person are not independent: a draw of the bootstrap takes all of them or none, and the
tests work on one value per person (the mean of the scans). A metric is a function of the weights of
the scans: with ones it is the value, with a draw's counts that draw's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from msnmo_bids.evaluation.crossval_results import MISSING, REFERENCE, CrossValidation, ModelResults
from msnmo_bids.evaluation.metrics import (
    MASK_METRICS,
    METRICS,
    POOLED,
    VOLUMES,
    calibration_error,
    probability_columns,
)

#: With fewer people an interval or a test says nothing.
MIN_SUBJECTS = 6
DRAWS = 2000
LEVEL = 0.95
_UNDEFINED_SHARE = 0.05  # of the draws may be without a value

SITE_COLUMNS = ("dataset", "site", "diagnosis", "subjects", "scans", "model", "dsc", "dsc_scans",
                "acc", "acc_scans")  # fmt: skip

#: From weights of the scans, (draws, N), to a value for each draw, (draws,); NaN: it has none.
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Interval:
    """A confidence interval; where its ends are None, the reason."""

    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Measure:
    """One metric of one model, over the ``scans`` of the ``subjects`` that have a value.

    ``value``, with its interval, is over all test scans at once: the mean, or the area or error.
    ``folds`` is the mean over the folds, each with its own value, as the paper reports; where it is
    None, as a fold is missing or has no value, ``reason`` says why.
    """

    value: float | None
    folds: float | None
    interval: Interval
    scans: int
    subjects: int
    reason: str = ""

    def text(self, factor: float = 1.0, *, digits: int = 1) -> tuple[str, str]:
        """Return value and interval, times a factor; ``n/a`` and nothing without a value."""
        if self.value is None:
            return MISSING, ""
        low, high = self.interval.low, self.interval.high
        value, ends = f"{factor * self.value:.{digits}f}", ""
        if low is not None and high is not None:
            ends = f"[{factor * low:.{digits}f}, {factor * high:.{digits}f}]"
        return value, ends


def cells(metric: str, measure: Measure | None) -> dict[str, float | None]:
    """Return the columns of a table that hold a measure: value, interval, scans, subjects."""
    names = (metric, *(f"{metric}_{part}" for part in ("low", "high", "scans", "subjects")))
    if measure is None:
        return dict.fromkeys(names)
    ends = measure.interval.low, measure.interval.high
    return dict(zip(names, (measure.value, *ends, measure.scans, measure.subjects), strict=True))


@dataclass(frozen=True)
class PairedTest:
    """A paired, two-sided test over ``subjects``, people with a value of both models.

    ``difference`` is first model minus second, of the mean (DSC) or of the area (AUC). Where p is
    None, ``reason`` says why.
    """

    p: float | None = None
    subjects: int = 0
    difference: float | None = None
    reason: str = ""


def summarise(found: CrossValidation, name: str) -> dict[str, Measure]:
    """Measure a model by `METRICS`, with 0 scans for a task that it lacks."""
    return {metric: _measure(found, found.models[name], metric) for metric in METRICS}


def _measure(found: CrossValidation, model: ModelResults, metric: str) -> Measure:
    scans, statistic = _with_value(found, model.scans, metric)
    if not len(scans):
        return Measure(None, None, Interval(reason="no scans"), 0, 0, "no scans")
    folds, reason = _mean_of_folds(found, model, metric)
    subjects = list(scans["subject"])
    if metric == "ece":
        interval = Interval(reason="draws make a calibration error larger")
    else:
        interval = bootstrap_interval(subjects, list(scans["diagnosis"]), statistic)
    return Measure(
        _value(scans, statistic), folds, interval, len(scans), len(set(subjects)), reason
    )


def _mean_of_folds(
    found: CrossValidation, model: ModelResults, metric: str
) -> tuple[float | None, str]:
    """Return the mean of the folds' own values, or why there is none."""
    if model.gap:
        return None, model.gap
    values = []
    for fold in found.folds:
        value = _value(*_with_value(found, model.scans[model.scans["fold"] == fold], metric))
        if value is None:
            return None, f"no value in fold {fold}"
        values.append(value)
    return float(np.mean(values)), ""


def _value(scans: pd.DataFrame, statistic: Statistic) -> float | None:
    value = statistic(np.ones((1, len(scans))))[0] if len(scans) else np.nan
    return None if np.isnan(value) else float(value)


def _with_value(
    found: CrossValidation, scans: pd.DataFrame, metric: str
) -> tuple[pd.DataFrame, Statistic]:
    """Return the scans that a metric is over, and the metric."""
    if metric in MASK_METRICS:
        scans = scans[scans[metric].notna()]
        return scans, _mean_of(scans[metric])
    if metric in POOLED:
        scans = scans[scans[["dsc", *VOLUMES]].notna().all(axis=1)]
        return scans, _pooled(scans, metric.removeprefix("pooled_"))
    scans = classified(found, scans)
    if metric == "acc":
        return scans, _mean_of(scans["called"] == scans["label"])
    if metric in ("sn", "sp"):
        scans = scans[scans["positive"] == (metric == "sn")]
        called = scans["called"] == found.classes.index(found.positive)
        return scans, _mean_of(called == scans["positive"])
    if metric == "brier":
        return scans, _mean_of((scans["score"] - scans["positive"]) ** 2)
    labels, scores = scans["positive"].to_numpy(bool), scans["score"].to_numpy(float)
    if metric == "auc":
        return scans, lambda weights: weighted_roc_area(labels, scores, weights)
    return scans, lambda _: np.array([calibration_error(labels, scores)])


def classified(found: CrossValidation, scans: pd.DataFrame) -> pd.DataFrame:
    """Return the scans that have a diagnosis of the classes and probabilities.

    Further columns: ``label`` (index of the true class), ``called`` (that of the predicted one),
    ``positive`` (whether the true class is the positive one) and ``score`` (its probability).
    """
    columns = probability_columns(found.classes)
    kept = scans[scans["diagnosis"].isin(found.classes) & scans[columns].notna().all(axis=1)]
    return kept.assign(
        label=[found.classes.index(name) for name in kept["diagnosis"]],
        called=kept[columns].to_numpy().argmax(axis=1) if len(kept) else [],
        positive=kept["diagnosis"] == found.positive,
        score=kept[f"prob_{found.positive}"],
    )


def _mean_of(values: pd.Series) -> Statistic:
    array = values.to_numpy(dtype=float)
    return lambda weights: weighted_mean(array, weights)


def _pooled(scans: pd.DataFrame, metric: str) -> Statistic:
    """Compare all scans as if they were one, each voxel weighted by its volume.

    The DSC of a scan gives, with its volumes, the volume that both masks share.
    """
    true, found = (scans[name].to_numpy(dtype=float) for name in VOLUMES)
    both = scans["dsc"].to_numpy(dtype=float) * (true + found) / 2
    part, whole = {
        "dsc": (2 * both, true + found),
        "ppv": (both, found),
        "tpr": (both, true),
        "vd": (found - true, true),
    }[metric]
    empty = 1.0 if metric == "dsc" else np.nan  # the rules for one scan

    def statistic(weights: np.ndarray) -> np.ndarray:
        total, none = weights @ whole, np.full(len(weights), empty)
        return np.divide(abs(weights @ part), total, out=none, where=total > 0)

    return statistic


def compare(found: CrossValidation, first: str, second: str, *, metric: str) -> PairedTest:
    """Test two models against each other on the scans that both have.

    The metric is "dsc", by Wilcoxon's test, or "auc", by DeLong's.
    """
    one, other = (found.models[name].scans for name in (first, second))
    common = one.index.intersection(other.index)
    one, other = one.loc[common], other.loc[common]
    if metric == "dsc":
        return wilcoxon_test(one["dsc"].to_numpy(), other["dsc"].to_numpy(), list(one["subject"]))
    known = one["diagnosis"].isin(found.classes)
    one, other = one[known], other[known]
    labels, column = (one["diagnosis"] == found.positive).to_numpy(), f"prob_{found.positive}"
    scores = one[column].to_numpy(), other[column].to_numpy()
    return delong_test(labels, *scores, list(one["subject"]))


def site_rows(found: CrossValidation) -> list[dict[str, Any]]:
    """Count subjects and scans by data set, site and diagnosis: a row of `SITE_COLUMNS` each.

    Subjects are those of the plan; scans, mean DSC and ACC (0 to 1, None without a scan) those of
    the joint model, else of the first one.
    """
    model = REFERENCE if REFERENCE in found.models else next(iter(found.models))
    scans, keys = found.models[model].scans, ["dataset", "site", "diagnosis"]
    judged = classified(found, scans)
    right = (judged["called"] == judged["label"]).astype(float).reindex(scans.index)
    table = found.plan.groupby(keys).size().to_frame("subjects").assign(model=model)
    by_site = scans.assign(right=right).groupby(keys)
    table["scans"] = by_site.size()
    for name, values in (("dsc", by_site["dsc"]), ("acc", by_site["right"])):
        table[name], table[f"{name}_scans"] = values.mean(), values.count()
    counts = ["scans", "dsc_scans", "acc_scans"]
    table = table.fillna(dict.fromkeys(counts, 0)).astype(dict.fromkeys(counts, int))
    rows = table.reset_index().astype(object).replace({np.nan: None}).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def guesses(found: CrossValidation) -> tuple[float, float] | None:
    """Return how often a guess is right that does not look at the image.

    Returns
    -------
    by_site, by_majority : float
        Share of the subjects whose diagnosis is the most frequent one of their site, and the most
        frequent one of all. None when no diagnosis is known.
    """
    known = found.plan[found.plan["diagnosis"].isin(found.classes)]
    if known.empty:
        return None
    by_site = known.groupby(["dataset", "site"])["diagnosis"].value_counts()
    most = by_site.groupby(["dataset", "site"]).max().sum()
    return float(most) / len(known), float(known["diagnosis"].value_counts(normalize=True).max())


def too_few(people: int) -> str:
    """Say that an interval or a test needs more people; empty where there are enough."""
    if people >= MIN_SUBJECTS:
        return ""
    return f"too few subjects: {people}, at least {MIN_SUBJECTS} needed"


def bootstrap_interval(
    subjects: Sequence[str], strata: Sequence[str], statistic: Statistic
) -> Interval:
    """Return a percentile interval (coverage: `LEVEL`) of a bootstrap of the subjects.

    `subjects` and `strata` (N,) are those of the scans that have a value, as for `subject_weights`.
    The interval has no ends when there are fewer than `MIN_SUBJECTS` people.
    """
    if reason := too_few(len(set(subjects))):
        return Interval(reason=reason)
    values = statistic(subject_weights(subjects, strata, draws=DRAWS))
    undefined = np.isnan(values)
    if undefined.mean() > _UNDEFINED_SHARE:
        return Interval(reason="no value in too many draws")
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values[~undefined], [tail, 1 - tail])
    return Interval(float(low), float(high))


def subject_weights(subjects: Sequence[str], strata: Sequence[str], *, draws: int) -> np.ndarray:
    """Draw people with replacement, within each stratum; equal scans give equal draws.

    `subjects` and `strata` (N,) are person and diagnosis of each scan; the diagnosis of a person's
    first scan counts. Returns how often each scan is in each draw, (draws, N): all scans of a
    person equally often, and in every draw as many people of each stratum as there are.
    """
    people, first, person_of_scan = np.unique(
        np.asarray(subjects, dtype=str), return_index=True, return_inverse=True
    )
    stratum = np.asarray(strata, dtype=str)[first]
    counts = np.zeros((draws, people.size), dtype=np.int64)
    rng = np.random.default_rng(0)
    for name in np.unique(stratum):
        members = np.flatnonzero(stratum == name)
        share = np.full(members.size, 1 / members.size)
        counts[:, members] = rng.multinomial(members.size, share, size=draws)
    return counts[:, person_of_scan]


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of the values (N,) in each draw (draws,), NaN where a draw has none.

    The weights (draws, N) are of `subject_weights`.
    """
    total = weights.sum(axis=1)
    none = np.full(len(weights), np.nan)
    return np.divide(weights @ values, total, out=none, where=total > 0)


def weighted_roc_area(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve in each draw, (draws,); NaN where it has one class only.

    A tie counts half. `labels` (N,) are true for the positive class, `scores` (N,) larger for it;
    the weights (draws, N) are of `subject_weights`.
    """
    positive, negative = weights[:, labels].astype(float), weights[:, ~labels].astype(float)
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    won = ((positive @ _wins(scores[labels], scores[~labels])) * negative).sum(axis=1)
    return np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def wilcoxon_test(first: np.ndarray, second: np.ndarray, subjects: Sequence[str]) -> PairedTest:
    """Test whether two models differ in a metric such as DSC: Wilcoxon's signed-rank test.

    Equal values are ranked and then left out (Pratt 1959); p = 1 where all are equal. Several scans
    of a person are averaged. `first` and `second` (N,) are the metric of each scan, NaN: n/a.
    """
    from scipy.stats import wilcoxon

    scans = pd.Series(first - second, list(subjects)).dropna()
    difference = scans.groupby(level=0).mean().to_numpy()
    if reason := too_few(difference.size):
        return PairedTest(subjects=difference.size, reason=reason)
    mean = float(difference.mean())
    difference = np.where(np.abs(difference) < 1e-12, 0.0, difference)
    p = float(wilcoxon(difference, zero_method="pratt").pvalue) if difference.any() else 1.0
    return PairedTest(p, difference.size, mean)


def delong_test(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, subjects: Sequence[str]
) -> PairedTest:
    """Test whether the areas under two ROC curves of the same people differ (DeLong et al. 1988).

    Several scans of a person are averaged: the test takes the people for independent. `labels` (N,)
    are true for the positive class, `first` and `second` (N,) the scores of each scan, NaN: n/a.
    p = 1 where both models rank alike; there is none when a class has fewer than two people.
    """
    from scipy.stats import norm

    scans = pd.DataFrame({"truth": labels, "first": first, "second": second}, list(subjects))
    people = scans.astype(float).dropna().groupby(level=0).mean()
    truth = people["truth"].to_numpy() > 0.5
    if reason := too_few(truth.size):
        return PairedTest(subjects=truth.size, reason=reason)
    if min(truth.sum(), (~truth).sum()) < 2:
        return PairedTest(subjects=truth.size, reason="fewer than two subjects of a class")
    areas, covariance = delong_covariance(truth, people[["first", "second"]].to_numpy().T)
    difference = float(areas[0] - areas[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance < 1e-15:
        if abs(difference) < 1e-12:
            return PairedTest(1.0, truth.size, difference)
        return PairedTest(
            None, truth.size, difference, "no variance: one model ranks without an error"
        )
    p = float(2 * norm.sf(abs(difference) / np.sqrt(variance)))
    return PairedTest(p, truth.size, difference)


def delong_covariance(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return areas under ROC curves, (M,), and their covariance, (M, M) (DeLong et al. 1988).

    `labels` (N,) are true for the positive class, with at least two people of either; `scores`
    (M, N) are of M models. The covariance is S10 / m + S01 / n of the paper's Eq. 5.
    """
    wins = np.stack([_wins(row[labels], row[~labels]) for row in scores])
    of_positives, of_negatives = wins.mean(axis=2), wins.mean(axis=1)
    covariance = np.cov(of_positives) / of_positives.shape[1]
    covariance = covariance + np.cov(of_negatives) / of_negatives.shape[1]
    return wins.mean(axis=(1, 2)), covariance


def _wins(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """Compare every positive with every negative: 1 larger, 0.5 equal, 0 smaller."""
    return (np.sign(positive[:, None] - negative[None, :]) + 1) / 2
