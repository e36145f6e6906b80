"""Picture what weights say of simulated test scans: calibration, withholding, volume, overlap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dev.naming import LARGEST_RISK
from dev.simulated_summary import nameable, risk_coverage
from msnmo_bids.evaluation.metrics import (
    calibration_bins,
    calibration_error,
)
from msnmo_bids.evaluation.plots import COLOURS, figure_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 5
_LEAST_ML = 0.01  # where scans without a lesion are drawn, on the logarithmic axes
_GREY = "#77828C"  # of those without a disease


def accuracy_figure(cases: pd.DataFrame, classes: Sequence[str], out: Path) -> Path:
    """Draw reliability, risk and coverage, found against true volume, and DSC against volume.

    Parameters
    ----------
    cases : DataFrame
        Rows of `dev.simulated_test.evaluate_case`, healthy ones among them.
    classes : sequence of str
        MS and NMOSD, in the network's order.
    out : Path
        PNG or SVG file.

    Returns
    -------
    Path
        `out`.
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
