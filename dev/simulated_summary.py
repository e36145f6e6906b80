"""Summarise what weights say of simulated test scans (`dev.simulated_test`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from msnmo_bids.evaluation.metrics import (
    calibration_error,
    probability_columns,
    roc_area,
)


def decide(
    cases: pd.DataFrame, classes: Sequence[str], limits: Mapping[str, float | None]
) -> np.ndarray:
    """Return the diagnosis that the app names, or None where it withholds one.

    Parameters
    ----------
    cases : DataFrame
        Rows of `evaluate_case`.
    classes : sequence of str
        Names of the classes.
    limits : mapping of str to float or None
        A class is named from this probability; None: never; without a limit always.

    Returns
    -------
    ndarray of object, (N,)
        Name of a class, or None.
    """
    named, confidence = _likeliest(cases, classes)
    least = np.array([np.inf if (x := limits.get(n, 0.0)) is None else x for n in named])
    withheld = (confidence < least) | ~cases["agree"].astype(bool).to_numpy()
    withheld |= cases["found_count"].to_numpy() == 0
    named[withheld] = None
    return named


def diagnosis_summary(
    cases: pd.DataFrame, classes: Sequence[str], limits: Mapping[str, float | None]
) -> dict[str, Any]:
    """Summarise the diagnoses of some cases.

    Parameters
    ----------
    cases : DataFrame
        Rows of `evaluate_case`; of the healthy ones only the share that is named is told.
    classes : sequence of str
        MS and NMOSD, in the network's order.
    limits : mapping of str to float or None
        As for `decide`.

    Returns
    -------
    dict
        Counts; AUC of the network's scores for all cases with disease, and for those with a lesion
        found; accuracy; expected calibration error; share that is named, of each class too; share
        of the named ones that is wrong, of each name too; AUC of the found volume alone (the better
        direction); accuracy of the rule where it was applied; share of the healthy that is named.
    """
    sick = cases[cases["diagnosis"].isin(list(classes))]
    if sick.empty:
        return {"scans": 0}
    label = (sick["diagnosis"] == classes[1]).to_numpy().astype(int)
    score = sick[f"prob_{classes[1]}"].to_numpy()
    named = decide(sick, classes, limits)
    known = named != np.array(None)
    wrong = known & (named != sick["diagnosis"].to_numpy())
    both = len(set(label.tolist())) == 2
    by_volume = roc_area(label, sick["predicted_volume_ml"].to_numpy()) if both else None
    true = sick["diagnosis"].to_numpy()
    found = sick["found_count"].to_numpy() > 0
    summary: dict[str, Any] = {
        "scans": len(sick),
        "auc": roc_area(label, score) if both else None,
        "scans_found": int(found.sum()),
        "auc_found": roc_area(label[found], score[found])
        if len(set(label[found].tolist())) == 2
        else None,
        "accuracy": float(((score > 0.5) == label).mean()),
        "ece": calibration_error(label, score, bins=10),
        "named": float(known.mean()),
        "named_by_class": {name: _share(known[true == name]) for name in classes},
        "wrong_of_named": _share(wrong[known]),
        "wrong_by_name": {name: _share(wrong[named == name]) for name in classes},
        "auc_of_volume": None if by_volume is None else max(by_volume, 1 - by_volume),
    }
    healthy = cases[~cases["diagnosis"].isin(list(classes))]
    if len(healthy):
        summary["named_healthy"] = _share(decide(healthy, classes, limits) != np.array(None))
    if "rule" in sick:
        summary["accuracy_of_rule"] = float((sick["rule"] == sick["diagnosis"]).mean())
    return summary


def nameable(cases: pd.DataFrame, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Judge the likeliest class of the cases with disease that only a limit keeps from a name.

    Parameters
    ----------
    cases, classes
        As for `diagnosis_summary`. Cases without a found lesion, or on which networks or views
        disagree, are not named anyway and left out.

    Returns
    -------
    correct : ndarray of bool, (N,)
        Whether it is the true one.
    confidence : ndarray, (N,)
        Its probability.
    """
    sick = cases[cases["diagnosis"].isin(list(classes))]
    sick = sick[decide(sick, classes, {}) != np.array(None)]
    named, confidence = _likeliest(sick, classes)
    return named == sick["diagnosis"].to_numpy(), confidence


def segmentation_summary(cases: pd.DataFrame) -> dict[str, float | int | None]:
    """Summarise the segmentation.

    Parameters
    ----------
    cases : DataFrame
        Rows of `evaluate_case`, healthy ones among them.

    Returns
    -------
    dict
        Means over the scans with lesions; marked volume of the healthy ones (ml), mean and largest.
    """
    sick, healthy = cases[cases["true_volume_ml"] > 0], cases[cases["diagnosis"] == "HC"]
    columns = [name for name in map(str, cases) if name.startswith("dsc_")]
    columns += ["dsc", "ppv", "tpr", "lesion_f1"]
    present = [name for name in columns if name in sick]
    summary: dict[str, Any] = {"scans": len(sick)}
    summary |= {name: _mean(sick[name]) for name in present}
    if len(healthy):
        summary["healthy_mean_ml"] = _mean(healthy["predicted_volume_ml"])
        summary["healthy_largest_ml"] = float(healthy["predicted_volume_ml"].max())
    return summary


def ceiling(features: pd.DataFrame, labels: np.ndarray, *, seed: int = 0) -> float | None:
    """Estimate the AUC that the priors themselves allow: from the true lesions, by kind.

    Parameters
    ----------
    features : DataFrame
        Rows of `truth_features`.
    labels : ndarray of int, (N,)
        0 and 1.
    seed : int, optional
        Of the random forest.

    Returns
    -------
    float or None
        AUC of a random forest in five folds; None with fewer than ten scans of a class.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    if np.bincount(labels, minlength=2).min() < 10:
        return None
    forest = RandomForestClassifier(300, random_state=seed)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    table = features.fillna(0.0).to_numpy()
    scores = cross_val_predict(forest, table, labels, cv=folds, method="predict_proba")[:, 1]
    return roc_area(labels, scores)


def risk_coverage(correct: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return how often a classifier is wrong if it names only what it is sure of.

    Parameters
    ----------
    correct : ndarray of bool, (N,)
        Whether the likeliest class is the true one.
    confidence : ndarray, (N,)
        Its probability.

    Returns
    -------
    limit, coverage, risk : ndarray, (M,)
        For each confidence that occurs, highest first: share of the scans that reach it, and
        share of these whose class is wrong (El-Yaniv and Wiener 2010).

    Examples
    --------
    >>> import numpy as np
    >>> correct, confidence = np.array([1, 0, 1, 1]), np.array([0.9, 0.6, 0.8, 0.6])
    >>> limit, coverage, risk = risk_coverage(correct, confidence)
    >>> coverage.tolist(), risk.tolist()
    ([0.25, 0.5, 1.0], [0.0, 0.0, 0.25])
    """
    order = np.argsort(-confidence, kind="stable")
    limit = confidence[order]
    wrong = np.cumsum(~correct[order].astype(bool))
    count = np.arange(1, len(order) + 1)
    last = np.append(np.flatnonzero(np.diff(limit)), len(limit) - 1)
    return limit[last], count[last] / len(order), wrong[last] / count[last]


def _likeliest(cases: pd.DataFrame, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the likeliest class of each case, and its probability."""
    probabilities = cases[probability_columns(classes)].to_numpy()
    named = np.asarray(classes, dtype=object)[probabilities.argmax(axis=1)]
    return named, probabilities.max(axis=1)


def _share(which: np.ndarray) -> float | None:
    return float(which.mean()) if len(which) else None


def _mean(column: pd.Series) -> float | None:
    values = pd.to_numeric(column, errors="coerce").dropna()
    return float(values.mean()) if len(values) else None
