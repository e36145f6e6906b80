"""Figures as files, and those of a cross-validation: ROC curves, calibration, learning curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.evaluation.crossval import (
    CURVES,
    REFERENCE,
    RULE,
    CrossValidation,
    ModelResults,
    read_curves,
)
from msnmo_bids.evaluation.metrics import calibration_bins
from msnmo_bids.evaluation.summary import Measure, classified
from msnmo_bids.evaluation.tables import label
from msnmo_bids.reports.panels import DPI
from msnmo_bids.text import natural_key

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's palette, without its black (the joint model's) and its yellow (pale on white).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P")

_SMOOTH_SHARE = 0.02  # of the steps, for the running mean of a loss
_POINTS = 600  # of a learning curve that are drawn
_CALIBRATION_BINS = 5


@contextmanager
def figure_file(size: tuple[float, float], *out: Path) -> Iterator[Figure]:
    """Give a figure of `size` (inches) and write it at the end, as PNG or SVG by the suffix.

    Equal figures are equal files.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({
            "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "msnmo",
        })  # fmt: skip
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        for file in out:
            unnamed = {"Date": None} if file.suffix == ".svg" else None
            with atomic_path(file) as temporary:
                figure.savefig(temporary, dpi=DPI, metadata=unnamed)


def roc_figure(
    found: CrossValidation,
    models: Sequence[str],
    measures: Mapping[str, Mapping[str, Measure]],
    out: Path,
    *,
    title: str,
) -> Path | None:
    """Draw ROC curves over all test scans, the joint model's as a thick black line (PNG).

    Models without probabilities are left out; the rule is a point. `measures`, by model and metric,
    give the areas in the legend. None when there is nothing to draw.
    """
    from sklearn.metrics import roc_curve

    drawn = _with_both_classes(found, models)
    if not drawn:
        return None
    with figure_file((7.2, 5.4), out) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="0.55", lw=1, ls=":", label="chance")
        for number, (model, scans) in enumerate(drawn.items()):
            rates = roc_curve(scans["positive"].to_numpy(), scans["score"].to_numpy())[:2]
            text = f"{label(model)}, AUC {measures[model]['auc'].text(digits=2)}"
            if model == RULE:
                text = f"{label(model)}: one point"
                axes.plot(rates[0][1:-1], rates[1][1:-1], "kX", ms=10, label=text)
            else:
                axes.plot(*rates, label=text, **_style(model, number))
        axes.set(
            xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", title=title,
            xlabel="1 − specificity", ylabel=f"sensitivity ({found.positive})",
        )  # fmt: skip
        figure.legend(loc="outside lower center", ncols=1 if len(drawn) < 5 else 2, fontsize=8)
    return out


def calibration_figure(found: CrossValidation, models: Sequence[str], out: Path) -> Path | None:
    """Draw how often the positive class was true, by its probability, and the joint model's scores.

    The file is a PNG; None when there is nothing to draw. The rule has no probabilities and is left
    out.
    """
    drawn = _with_both_classes(found, [model for model in models if model != RULE])
    if not drawn:
        return None
    with figure_file((7.2, 6.4), out) as figure:
        axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        axes.plot([0, 1], [0, 1], color="0.55", lw=1, ls=":", label="calibrated")
        for number, (model, scans) in enumerate(drawn.items()):
            labels, scores = scans["positive"].to_numpy(), scans["score"].to_numpy()
            mean, observed, _ = calibration_bins(labels, scores, bins=_CALIBRATION_BINS)
            style = _style(model, number)
            marker = "o" if model == REFERENCE else MARKERS[number % len(MARKERS)]
            axes.plot(mean, observed, marker=marker, ms=5, label=label(model), **style)
        shown = REFERENCE if REFERENCE in drawn else next(iter(drawn))
        edges = np.linspace(0, 1, 21)
        counts.hist(drawn[shown]["score"], bins=edges.tolist(), color="0.35", edgecolor="white")
        counts.set(
            ylabel=f"scans\n({label(shown)})",
            xlabel=f"probability of {found.positive}",
            xlim=(-0.01, 1.01),
        )
        counts.yaxis.get_major_locator().set_params(integer=True)
        axes.set(ylim=(-0.02, 1.02), ylabel=f"share of {found.positive}", title="Calibration")
        axes.legend(fontsize=8, loc="upper left")
    return out


def learning_curves(found: CrossValidation, out: Path) -> Path | None:
    """Draw the losses of all models: a panel per model, a line per fold (PNG).

    Folds without ``curves.csv`` are left out; None when no fold has curves.
    """
    curves = {model.name: _curves(model) for model in found.models.values()}
    curves = {name: folds for name, folds in curves.items() if folds}
    if not curves:
        return None
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    with figure_file((3.4 * columns + 0.4, 2.5 * rows + 0.7), out) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel in panels[len(curves) :]:
            panel.set_axis_off()
        for axes, (name, folds) in zip(panels, curves.items(), strict=False):
            axes.set_title(label(name), fontsize=10)
            for number, (fold, table) in enumerate(folds.items()):
                colour = COLOURS[number % len(COLOURS)]
                _draw_curve(axes, table, f"fold {fold}", colour)
            axes.set(xlabel="step", ylabel="loss")
        legends = (panel.get_legend_handles_labels() for panel in panels)
        handles, labels = max(legends, key=lambda legend: len(legend[0]))
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
    return out


def _curves(model: ModelResults) -> dict[str, pd.DataFrame]:
    """Read the curves of a model's folds that have any."""
    found = {}
    for fold in sorted(model.folds, key=natural_key):
        table = pd.DataFrame(read_curves(model.folds[fold] / CURVES))
        if {"step", "total"} <= set(table.columns):
            found[fold] = table.dropna(subset=["step", "total"])
    return found


def _draw_curve(axes: Axes, table: pd.DataFrame, name: str, colour: str) -> None:
    width = max(1, round(_SMOOTH_SHARE * len(table)))
    smooth = table["total"].rolling(width, min_periods=1).mean()
    every = max(1, len(table) // _POINTS)
    axes.plot(table["step"][::every], smooth[::every], color=colour, lw=1.2, label=name)
    if "validation_total" in table and (known := table["validation_total"].notna()).any():
        where = table["step"][known], table["validation_total"][known]
        axes.plot(*where, color=colour, lw=1, ls="--", marker="o", ms=2.5)


def _with_both_classes(found: CrossValidation, models: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the classified scans of the models that can have a ROC curve, the joint one last."""
    tables = {
        model: classified(found, found.models[model].scans)
        for model in sorted(models, key=lambda name: name == REFERENCE)
        if model in found.models
    }
    return {
        model: scans
        for model, scans in tables.items()
        if scans["positive"].any() and not scans["positive"].all()
    }


def _style(model: str, number: int) -> dict[str, Any]:
    if model == REFERENCE:
        return {"color": "black", "lw": 2.6, "zorder": 3}
    return {
        "color": COLOURS[number % len(COLOURS)],
        "ls": STYLES[(number + number // len(COLOURS)) % len(STYLES)],  # no pair twice among 18
        "lw": 1.6,
    }
