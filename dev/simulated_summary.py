"""Summarise and picture what weights say of simulated test scans (`dev.simulated_test`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from dev.naming import LARGEST_RISK, disease_named
from msnmo_bids.decision import likeliest_disease
from msnmo_bids.evaluation.figures import COLOURS, figure_file
from msnmo_bids.evaluation.metrics import calibration_bins, calibration_error, probability_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 5
_LEAST_ML = 0.01  # where scans without a lesion are drawn, on the logarithmic axes
_GREY = "#77828C"  # of those without a disease


def decide(
    cases: pd.DataFrame, classes: Sequence[str], limits: Mapping[str, float | None]
) -> np.ndarray:
    """Return the class that the app names for each row of `evaluate_case`, or None."""
    names = [disease_named(scores, limits) for scores in _scores(cases, classes)]
    named = np.array(names, dtype=object)
    named[cases["found_count"].to_numpy() == 0] = None
    return named


def diagnosis_summary(
    cases: pd.DataFrame, classes: Sequence[str], limits: Mapping[str, float | None]
) -> dict[str, Any]:
    """Summarise the diagnoses of some rows of `evaluate_case`; the classes are MS and NMOSD.

    Counts; AUC of the network's scores for all cases with disease, and for those with a lesion
    found; accuracy; expected calibration error; share that is named, of each class too; share of
    the named ones that is wrong, of each name too; AUC of the found volume alone (the better
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
    volumes = sick["predicted_volume_ml"].to_numpy()
    by_volume = float(roc_auc_score(label, volumes)) if both else None
    true = sick["diagnosis"].to_numpy()
    found = sick["found_count"].to_numpy() > 0
    summary: dict[str, Any] = {
        "scans": len(sick),
        "auc": float(roc_auc_score(label, score)) if both else None,
        "scans_found": int(found.sum()),
        "auc_found": float(roc_auc_score(label[found], score[found]))
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
    """Judge the likeliest disease of the cases that only its own limit keeps from a name.

    Cases without a found lesion, or on which what looks like a disease leads, are not named anyway
    and left out.

    Returns
    -------
    correct : ndarray of bool, (N,)
        Whether it is the true one.
    confidence : ndarray, (N,)
        Its share of what the diseases score.
    """
    sick = cases[cases["diagnosis"].isin(list(classes))]
    sick = sick[decide(sick, classes, {}) != np.array(None)]
    named = [likeliest_disease(scores) for scores in _scores(sick, classes)]
    correct = [name == true for (name, _), true in zip(named, sick["diagnosis"], strict=True)]
    return np.array(correct, dtype=bool), np.array([share for _, share in named])


def segmentation_summary(cases: pd.DataFrame) -> dict[str, float | int | None]:
    """Summarise the segmentation of rows of `evaluate_case`, healthy ones among them.

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


def ceiling(features: pd.DataFrame, labels: np.ndarray) -> float | None:
    """Estimate the AUC that the priors themselves allow: from the true lesions, by kind.

    It is that of a random forest on `truth_features` in five folds; None with fewer than ten scans
    of a class (0 or 1).
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    if np.bincount(labels, minlength=2).min() < 10:
        return None
    forest = RandomForestClassifier(300, random_state=0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    table = features.fillna(0.0).to_numpy()
    scores = cross_val_predict(forest, table, labels, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(labels, scores))


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


def _scores(cases: pd.DataFrame, classes: Sequence[str]) -> list[dict[str, float]]:
    """Return the scores of each case, by class."""
    rows = cases[probability_columns(classes)].to_numpy().tolist()
    return [dict(zip(classes, row, strict=True)) for row in rows]


def _share(which: np.ndarray) -> float | None:
    return float(which.mean()) if len(which) else None


def _mean(column: pd.Series) -> float | None:
    values = pd.to_numeric(column, errors="coerce").dropna()
    return float(values.mean()) if len(values) else None


def accuracy_figure(cases: pd.DataFrame, classes: Sequence[str], out: Path) -> Path:
    """Draw reliability, risk and coverage, found against true volume, and DSC against volume.

    `cases` are rows of `dev.simulated_test.evaluate_case`, healthy ones among them; `out`, a PNG or
    SVG file, is returned.
    """
    sick = cases[cases["diagnosis"].isin(list(classes))]
    with figure_file((9.0, 8.0), out) as figure:
        reliability, risk, volume, overlap = figure.subplots(2, 2).flat
        if len(sick):
            _draw_reliability(reliability, sick, classes)
            _draw_risk(risk, sick, classes)
        colours = dict(zip(classes, COLOURS, strict=False))
        _draw_volumes(volume, cases, colours)
        _draw_overlap(overlap, cases[cases["true_volume_ml"] > 0], colours)
        figure.suptitle(f"{len(cases)} simulated scans", fontsize=11)
    return out


def _draw_reliability(axes: Axes, sick: pd.DataFrame, classes: Sequence[str]) -> None:
    label = (sick["diagnosis"] == classes[1]).to_numpy().astype(int)
    score = sick[f"prob_{classes[1]}"].to_numpy(dtype=float)
    mean, observed, count = calibration_bins(label, score, bins=_BINS)
    spread = 1.96 * np.sqrt(observed * (1 - observed) / count)
    axes.plot([0, 1], [0, 1], color="0.55", lw=1, ls=":")
    axes.errorbar(mean, observed, yerr=spread, color="k", marker="o", capsize=3, lw=1)
    for x, y, number in zip(mean, observed, count, strict=True):
        axes.annotate(str(number), (x, y), xytext=(6, -12), textcoords="offset points", fontsize=8)
    error = calibration_error(label, score)
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        title=f"Reliability (ECE {error:.2f})",
        xlabel=f"probability of {classes[1]}",
        ylabel=f"share that is {classes[1]}",
    )


def _draw_risk(axes: Axes, sick: pd.DataFrame, classes: Sequence[str]) -> None:
    correct, confidence = nameable(sick, classes)
    if len(correct):
        _, coverage, risk = risk_coverage(correct, confidence)
        coverage = coverage * len(correct) / len(sick)
        axes.step(coverage, risk, where="post", color="k", lw=1)
    axes.axhline(LARGEST_RISK, color="0.55", lw=1, ls=":")
    axes.set(
        xlim=(0, 1.02),
        ylim=(-0.02, 1.02),
        title="Risk and coverage",
        xlabel="share of the scans that is named",
        ylabel="share of these that is wrong",
    )


def _draw_volumes(axes: Axes, cases: pd.DataFrame, colours: dict[str, str]) -> None:
    ends = np.array([_LEAST_ML, 200.0])
    axes.fill_between(ends, ends / 2, ends * 2, color="0.93", lw=0)
    axes.plot(ends, ends, color="0.55", lw=1, ls=":")
    for name, part in cases.groupby("diagnosis"):
        true = part["true_volume_ml"].clip(lower=_LEAST_ML)
        found = part["predicted_volume_ml"].clip(lower=_LEAST_ML)
        axes.plot(
            true, found, "o", ms=4, alpha=0.6, color=colours.get(str(name), _GREY), label=name
        )
    axes.legend(frameon=False, fontsize=8)
    axes.set(
        xscale="log",
        yscale="log",
        title="Lesion volume (grey: half to twice the true one)",
        xlabel=f"true (ml; none at {_LEAST_ML})",
        ylabel="found (ml)",
    )


def _draw_overlap(axes: Axes, lesioned: pd.DataFrame, colours: dict[str, str]) -> None:
    for name, part in lesioned.groupby("diagnosis"):
        colour = colours.get(str(name), _GREY)
        axes.plot(part["true_volume_ml"], part["dsc"], "o", ms=4, alpha=0.6, color=colour)
    mean = f", mean {lesioned['dsc'].mean():.2f}" if len(lesioned) else ""
    axes.set(xscale="log", ylim=(0, 1), title=f"DSC{mean}", xlabel="true (ml)", ylabel="DSC")
