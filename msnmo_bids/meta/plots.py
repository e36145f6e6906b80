"""Forest and funnel plot: each is written as SVG and PNG, of which the PNG's path is returned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from msnmo_bids.evaluation.plots import figure_file
from msnmo_bids.meta.pooling import FIXED, MODEL_NAMES, RANDOM, Analysis
from msnmo_bids.meta.studies import Numbers, Z, rounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE = "#0072B2", "#D55E00"
_ROW = 0.27  # inches
_CHARACTER = 0.082  # inches, at the size of the labels
_SIZE = 9.0
_DIAMONDS = {"chosen": "black", "other": "white", "subgroup": "0.6"}
#: Ticks of a logit axis.
_PERCENT = np.array([0.1, 1, 5, 20, 50, 80, 95, 99, 99.9])


class _Line(NamedTuple):
    """A line of a forest plot; ``kind``: study, prediction, heading, note or one of `_DIAMONDS`."""

    label: str
    kind: str
    numbers: Numbers | None = None
    weight: float = 0.0


def forest_plot(found: Analysis, stem: Path, column: str | None = None) -> Path:
    """Draw each study with its interval, the pooled diamonds and the prediction interval.

    The files are `stem` with their suffixes. With a `column` the studies stand under its values,
    each with its own diamond (fixed effect).
    """
    lines, published = _lines(found, column), found.data.reference
    heaviest = max(line.weight for line in lines)
    label_width = max(len(line.label) for line in lines) * _CHARACTER + 0.2
    size = label_width + 7.2, _ROW * len(lines) + (1.35 if published else 1.05)
    files = stem.with_suffix(".svg"), stem.with_suffix(".png")
    with figure_file(size, *files) as figure:
        widths: dict[str, Any] = {"width_ratios": (label_width, 4.2, 3.0), "wspace": 0}
        names, axes, results = figure.subplots(1, 3, sharey=True, gridspec_kw=widths)
        style: dict[str, Any] = {"ha": "right", "va": "center", "size": _SIZE}
        for y, line in enumerate(lines):
            bold = "bold" if line.kind in ("heading", "chosen") else "normal"
            names.text(0, y, line.label, va="center", size=_SIZE, weight=bold)
            if line.numbers:
                _draw(axes, y, line, line.numbers, heaviest)
                effect, low, high = map(rounded, line.numbers)
                text = f"{'' if line.kind == 'prediction' else effect} [{low}, {high}]"
                results.text(0.72, y, text, weight=bold, **style)
            if line.weight:
                results.text(1, y, f"{rounded(100 * line.weight, 1)} %", **style)
        results.text(0.62, -1, "95 % interval", **style)
        results.text(1, -1, "weight", **style)
        names.set_axis_off()
        results.set_axis_off()
        if published:
            text, (centre, left, right) = published
            axes.axvspan(left, right, color=ORANGE, alpha=0.12, lw=0)
            axes.axvline(centre, color=ORANGE, ls="--", lw=1, label=text)
            figure.legend(loc="outside lower center", fontsize=_SIZE, frameon=False)
        axes.set(ylim=(len(lines) - 0.3, -1.6), xlabel=found.data.measure, xmargin=0.06)
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False, labelleft=False)
    return files[1]


def _lines(found: Analysis, column: str | None) -> list[_Line]:
    data, pooled = found.data, found.pooled
    weighted = zip(data.studies.items(), pooled.weights[pooled.model], strict=True)
    studies = {name: _Line(name, "study", data.numbers(its), own) for (name, its), own in weighted}
    lines = [] if column else list(studies.values())
    for value, own in found.subgroups[column].items() if column else ():
        lines.append(_Line(f"{column}: {value}", "heading"))
        members = data.pooled.index[data.pooled[column] == value]
        lines += [studies[name]._replace(label=f"   {name}") for name in members]
        if own.studies > 1:
            lines.append(_Line("   fixed effect", "subgroup", data.numbers(own.estimates[FIXED])))
    if pooled.studies == 1:
        return lines
    for model, estimate in pooled.estimates.items():
        kind = "chosen" if model == pooled.model else "other"
        lines.append(_Line(MODEL_NAMES[model], kind, data.numbers(estimate)))
    if pooled.model == RANDOM and pooled.prediction:
        numbers = Numbers(*map(data.shown, (pooled.chosen.effect, *pooled.prediction)))
        lines.append(_Line("95 % prediction interval", "prediction", numbers))
    i2 = rounded(100 * (pooled.i2 or 0), 2)
    return [*lines, _Line(f"I² {i2} %, tau² {rounded(pooled.tau2, 2)}", "note")]


def _draw(axes: Axes, y: int, line: _Line, numbers: Numbers, heaviest: float) -> None:
    effect, low, high = numbers
    if line.kind in _DIAMONDS:
        corners = [low, effect, high, effect], [y, y - 0.3, y, y + 0.3]
        axes.fill(*corners, fc=_DIAMONDS[line.kind], ec="black", lw=0.9, zorder=3)
    else:
        width = 3 if line.kind == "prediction" else 1.1
        axes.plot([low, high], [y, y], color="black", lw=width, solid_capstyle="butt")
    if line.kind == "study":
        axes.plot(effect, y, "s", color=BLUE, ms=3 + 5 * np.sqrt(line.weight / heaviest))
    elif line.kind == "chosen":
        axes.axvline(effect, color="0.6", lw=0.8, zorder=0)


def funnel_plot(found: Analysis, stem: Path) -> Path:
    """Draw standard errors over effects, with the region where 95 % of the studies should lie."""
    data, table, centre = found.data, found.data.pooled, found.pooled.chosen.effect
    top = 1.25 * table["se"].max()
    files = stem.with_suffix(".svg"), stem.with_suffix(".png")
    with figure_file((6.4, 4.6), *files) as figure:
        axes = figure.subplots()
        ends = [centre - Z * top, centre, centre + Z * top]
        axes.plot(ends, [top, 0, top], color="0.5", ls="--", lw=1)
        axes.axvline(centre, color="0.5", lw=1)
        axes.plot(table["effect"], table["se"], "o", color=BLUE, ms=6, alpha=0.8, mec="white")
        # Names of equal errors alternately above and below; of many, none.
        ordered = sorted(data.studies.items(), key=lambda item: item[1].effect)
        for number, (name, study) in enumerate(ordered if len(ordered) <= 30 else ()):
            sign, side = (1, "bottom") if number % 2 else (-1, "top")
            axes.annotate(name, study, xytext=(3, 7 * sign), textcoords="offset points", size=7,
                          rotation=35 * sign, va=side, rotation_mode="anchor")  # fmt: skip
        axes.set(ylim=(top, 0), ylabel="standard error" + (" (logit)" if data.logit else ""))
        axes.set(xlabel=data.measure, xmargin=0.12)
        if data.logit:
            limits = axes.get_xlim()
            axes.set_xticks(np.log(_PERCENT / (100 - _PERCENT)), [f"{x:.4g}" for x in _PERCENT])
            axes.set_xlim(limits)
        axes.set_title(
            f"{MODEL_NAMES[found.pooled.model]} {rounded(data.shown(centre))}; dashed: where 95 % "
            "would lie\nif all differences were chance",
            fontsize=_SIZE + 0.5,
        )
    return files[1]
