"""Measures of a model over folds, scans and sites, and its tests against another model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from msnmo_bids.evaluation.crossval import MISSING, REFERENCE, CrossValidation, ModelResults
from msnmo_bids.evaluation.metrics import (
    CLASS_METRICS,
    MASK_METRICS,
    VOLUMES,
    classification_metrics,
    pooled,
    probability_columns,
)
from msnmo_bids.evaluation.statistics import (
    DRAWS,
    Interval,
    Test,
    bootstrap_interval,
    delong_test,
    weighted_mean,
    weighted_roc_area,
    wilcoxon_test,
)

#: DSC, PPV, TPR and VD over the voxels of all scans together.
POOLED = ("pooled_dsc", "pooled_ppv", "pooled_tpr", "pooled_vd")
METRICS = (*MASK_METRICS, *POOLED, *CLASS_METRICS)

SITE_COLUMNS = ("dataset", "site", "diagnosis", "subjects", "scans", "model", "dsc", "dsc_scans",
                "acc", "acc_scans")  # fmt: skip


@dataclass(frozen=True)
class Measure:
    """One metric of one model.

    Parameters
    ----------
    value : float or None
        Over all test scans at once: the mean, or the area or error over all of them.
    folds : float or None
        Mean over the folds, each with its own value, as the paper reports; None when a fold is
        missing or has no value.
    interval : Interval
        Of `value`.
    scans, subjects : int
        With a value.
    reason : str
        Why `folds` is None; empty otherwise.
    """

    value: float | None
    folds: float | None
    interval: Interval
    scans: int
    subjects: int
    reason: str = ""

    def text(self, factor: float = 1.0, *, digits: int = 1) -> str:
        """Return value and interval, times a factor; ``n/a`` without a value."""
        if self.value is None:
            return MISSING
        shown = f"{factor * self.value:.{digits}f}"
        low, high = self.interval.low, self.interval.high
        if low is None or high is None:
            return shown
        return f"{shown} [{factor * low:.{digits}f}, {factor * high:.{digits}f}]"


def summarise(found: CrossValidation, name: str, *, draws: int = DRAWS) -> dict[str, Measure]:
    """Measure a model by `METRICS`, with 0 scans for a task that it lacks."""
    model = found.models[name]
    return {metric: _measure(found, model, metric, draws) for metric in METRICS}


def compare(found: CrossValidation, first: str, second: str, *, metric: str) -> Test:
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
    column = f"prob_{found.positive}"
    return delong_test(
        (one["diagnosis"] == found.positive).to_numpy(),
        one[column].to_numpy(),
        other[column].to_numpy(),
        list(one["subject"]),
    )


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


def _measure(found: CrossValidation, model: ModelResults, metric: str, draws: int) -> Measure:
    scans, statistic = _with_value(found, model.scans, metric)
    if not len(scans):
        return Measure(None, None, Interval(reason="no scans"), 0, 0, "no scans")
    folds, reason = _mean_of_folds(found, model, metric)
    subjects = list(scans["subject"])
    interval = Interval(reason="none is given for this metric")
    if statistic is not None:
        interval = bootstrap_interval(subjects, list(scans["diagnosis"]), statistic, draws=draws)
    value = _value(found, scans, metric)
    return Measure(value, folds, interval, len(scans), len(set(subjects)), reason)


def _mean_of_folds(
    found: CrossValidation, model: ModelResults, metric: str
) -> tuple[float | None, str]:
    """Return the mean of the folds' own values, or why there is none."""
    if not model.complete:
        return None, model.gap
    values = []
    for fold in found.folds:
        scans, _ = _with_value(found, model.scans[model.scans["fold"] == fold], metric)
        value = _value(found, scans, metric) if len(scans) else None
        if value is None:
            return None, f"no value in fold {fold}"
        values.append(value)
    return float(np.mean(values)), ""


def _value(found: CrossValidation, scans: pd.DataFrame, metric: str) -> float | None:
    if metric in MASK_METRICS:
        return float(scans[metric].mean())
    if metric in POOLED:
        true, predicted = (scans[name] for name in VOLUMES)
        return pooled(true, predicted, scans["dsc"])[metric.removeprefix("pooled_")]
    measures = classification_metrics(
        scans["label"].to_numpy(),
        scans[probability_columns(found.classes)].to_numpy(),
        positive=found.classes.index(found.positive),
    )
    return measures[metric]


Statistic = Callable[[np.ndarray], np.ndarray]


def _with_value(
    found: CrossValidation, scans: pd.DataFrame, metric: str
) -> tuple[pd.DataFrame, Statistic | None]:
    """Return the scans that a metric is over, and its value in each draw of a bootstrap."""
    if metric in MASK_METRICS:
        scans = scans[scans[metric].notna()]
        return scans, _mean_of(scans[metric])
    if metric in POOLED:
        scans = scans[scans[["dsc", *VOLUMES]].notna().all(axis=1)]
        return scans, _pooled_dsc(scans) if metric == "pooled_dsc" else None
    scans = classified(found, scans)
    if metric == "sn":
        scans = scans[scans["positive"]]
    elif metric == "sp":
        scans = scans[~scans["positive"]]
    if metric == "acc":
        return scans, _mean_of(scans["called"] == scans["label"])
    if metric in ("sn", "sp"):
        called = scans["called"] == found.classes.index(found.positive)
        return scans, _mean_of(called == scans["positive"])
    if metric == "brier":
        return scans, _mean_of((scans["score"] - scans["positive"]) ** 2)
    if metric == "auc":
        labels, scores = scans["positive"].to_numpy(), scans["score"].to_numpy()
        return scans, lambda weights: weighted_roc_area(labels, scores, weights)
    return scans, None  # draws make a calibration error larger: no interval


def _mean_of(values: pd.Series) -> Statistic:
    array = values.to_numpy(dtype=float)
    return lambda weights: weighted_mean(array, weights)


def _pooled_dsc(scans: pd.DataFrame) -> Statistic:
    both = scans[list(VOLUMES)].sum(axis=1).to_numpy(dtype=float)
    shared = scans["dsc"].to_numpy() * both

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = weights @ both
        ones = np.ones(len(weights))
        return np.divide(weights @ shared, total, out=ones, where=total > 0)

    return statistic


def site_rows(found: CrossValidation) -> list[dict[str, Any]]:
    """Count subjects and scans by data set, site and diagnosis: a row of `SITE_COLUMNS` each.

    Subjects are those of the plan; scans, mean DSC and ACC (0 to 1, None without a scan) those of
    the joint model, else of the first one.
    """
    model = REFERENCE if REFERENCE in found.models else next(iter(found.models))
    scans = found.models[model].scans
    judged = classified(found, scans)
    right = (judged["called"] == judged["label"]).reindex(scans.index)
    keys = ["dataset", "site", "diagnosis"]
    tested = dict(list(scans.assign(right=right).groupby(keys)))
    rows = []
    for key, people in found.plan.groupby(keys):
        own = tested.get(key, pd.DataFrame(columns=["dsc", "right"], dtype=float))
        row: dict[str, Any] = dict(zip(keys, key, strict=True))
        row |= {"subjects": len(people), "scans": len(own), "model": model}
        for name, column in (("dsc", own["dsc"]), ("acc", own["right"])):
            values = column.dropna().astype(float)
            row[name] = float(values.mean()) if len(values) else None
            row[f"{name}_scans"] = len(values)
        rows.append(row)
    return rows


def guesses(found: CrossValidation) -> tuple[float, float] | None:
    """Return how often a guess is right that does not look at the image.

    Returns
    -------
    by_site, by_majority : float
        Share of the subjects whose diagnosis is the most frequent one of their site, and the most
        frequent one of all. None when no diagnosis is known.
    """
    known = found.plan[found.plan["diagnosis"].isin(found.classes)]
    if not len(known):
        return None
    by_site = known.groupby(["dataset", "site"])["diagnosis"].agg(_most_frequent).sum()
    return float(by_site) / len(known), _most_frequent(known["diagnosis"]) / len(known)


def _most_frequent(diagnoses: pd.Series) -> int:
    return int(diagnoses.value_counts().iloc[0])
