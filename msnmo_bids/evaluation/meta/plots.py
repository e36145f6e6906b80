"""Forest and funnel plot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msnmo_bids.evaluation.drawing import figure_file
from msnmo_bids.evaluation.meta.analysis import RANDOM, Estimate, Pooled, Study, Subgroups
from msnmo_bids.evaluation.meta.published import Published, reference
from msnmo_bids.evaluation.meta.studies import rounded
from msnmo_bids.evaluation.meta.summary import MODEL_NAMES, Analysis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE = "#0072B2", "#D55E00"
_ROW = 0.27  # inches
_CHARACTER = 0.082  # inches, at the size of the labels
_SIZE = 9.0
#: Ticks of a logit axis.
_PERCENT = np.array([0.1, 1, 5, 20, 50, 80, 95, 99, 99.9])


@dataclass(frozen=True)
class _Line:
    """A line of a forest plot: a heading (without estimate), a study, a diamond or a prediction."""

    label: str
    estimate: tuple[float, float, float] | None = None
    weight: float | None = None
    kind: str = "study"


def forest_plot(found: Analysis, *out: Path, group: Subgroups | None = None) -> tuple[Path, ...]:
    """Draw each study with its interval, the pooled diamonds and the prediction interval.

    Parameters
    ----------
    found : Analysis
        A meta-analysis.
    *out : Path
        Files, SVG or PNG by their suffix.
    group : Subgroups, optional
        Draw the studies under the values of this column, each with its own diamond (fixed effect).

    Returns
    -------
    tuple of Path
        `out`.
    """
    lines = _lines(found, group)
    published = None if found.data.printed else reference(found.data.measure)
    label_width = max(len(line.label) for line in lines) * _CHARACTER + 0.2
    height = _ROW * len(lines) + (1.35 if published else 1.05)
    with figure_file((label_width + 7.2, height), *out) as figure:
        names, axes, numbers = figure.subplots(
            1, 3, sharey=True, gridspec_kw={"width_ratios": (label_width, 4.2, 3.0), "wspace": 0}
        )
        _draw_lines(axes, lines)
        for number, line in enumerate(lines):
            _write(names, numbers, number, line)
        numbers.text(0.62, -1, "95 % interval", ha="right", va="center", fontsize=_SIZE)
        numbers.text(1, -1, "weight", ha="right", va="center", fontsize=_SIZE)
        for side in (names, numbers):
            side.set_axis_off()
        axes.set(ylim=(len(lines) - 0.3, -1.6), xlim=_limits(lines, published))
        axes.set_xlabel(found.data.measure)
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False, labelleft=False)
        if published:
            axes.axvspan(published.low, published.high, color=ORANGE, alpha=0.12, lw=0)
            axes.axvline(published.effect, color=ORANGE, ls="--", lw=1, label=published.text)
            figure.legend(loc="outside lower center", fontsize=_SIZE, frameon=False)
    return out


def funnel_plot(found: Analysis, *out: Path) -> tuple[Path, ...]:
    """Draw standard errors over effects, with the region where 95 % of the studies should lie.

    Parameters
    ----------
    found : Analysis
        A meta-analysis.
    *out : Path
        Files, SVG or PNG by their suffix.

    Returns
    -------
    tuple of Path
        `out`.
    """
    from matplotlib.ticker import FuncFormatter

    data, centre = found.data, found.pooled.chosen.effect
    effects = np.array([study.effect for study in data.studies])
    errors = np.array([study.se for study in data.studies])
    top = 1.25 * errors.max()
    with figure_file((6.4, 4.6), *out) as figure:
        axes = figure.subplots()
        half = Estimate(0.0, float(top)).high
        axes.plot([centre - half, centre, centre + half], [top, 0, top], color="0.5", ls="--", lw=1)
        axes.axvline(centre, color="0.5", lw=1)
        axes.plot(effects, errors, "o", color=BLUE, ms=6, alpha=0.8, mec="white", mew=0.8)
        _name_points(axes, data.studies)
        axes.set(ylim=(top, 0), ylabel="standard error" + (" (logit)" if data.logit else ""))
        axes.margins(x=0.12)
        limits = axes.get_xlim()
        axes.set_xlabel(data.measure)
        if data.logit:
            axes.set_xticks(np.log(_PERCENT / (100 - _PERCENT)))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{data.shown(x):.4g}"))
            axes.set_xlim(limits)
        axes.set_title(
            f"{MODEL_NAMES[found.pooled.model]} {rounded(data.shown(centre))}; dashed: where 95 % "
            "would lie\nif all differences were chance",
            fontsize=_SIZE + 0.5,
        )
    return out


def _name_points(axes: Axes, studies: tuple[Study, ...]) -> None:
    """Write the studies' names, those of equal errors alternately above and below."""
    if len(studies) > 30:
        return
    for number, study in enumerate(sorted(studies, key=lambda study: study.effect)):
        axes.annotate(
            study.name, (study.effect, study.se), xytext=(3, 7 if number % 2 else -7),
            textcoords="offset points", fontsize=7, rotation=35 if number % 2 else -35,
            va="bottom" if number % 2 else "top", rotation_mode="anchor",
        )  # fmt: skip


def _lines(found: Analysis, group: Subgroups | None) -> list[_Line]:
    data, pooled = found.data, found.pooled
    weights = dict(zip((study.name for study in data.studies), pooled.weights, strict=True))

    def row(study: Study, indent: str = "") -> _Line:
        return _Line(indent + study.name, _triple(study.estimate, data.shown), weights[study.name])

    def diamond(label: str, estimate: Estimate, kind: str) -> _Line:
        return _Line(label, _triple(estimate, data.shown), None, kind)

    lines: list[_Line] = []
    if group is None:
        lines = [row(study) for study in data.studies]
    else:
        for value, own in group.pooled.items():
            lines.append(_Line(f"{group.column}: {value}", kind="heading"))
            members = [s for s in data.studies if s.groups.get(group.column) == value]
            lines += [row(study, "   ") for study in members]
            if len(members) > 1:
                lines.append(diamond("   fixed effect", own.fixed, "subgroup"))
    if pooled.studies == 1:
        return lines
    for model, estimate in (("fixed", pooled.fixed), ("random", pooled.random)):
        kind = "chosen" if model == pooled.model else "other"
        lines.append(diamond(MODEL_NAMES[model], estimate, kind))
    low, high = pooled.prediction.low, pooled.prediction.high
    if pooled.model == RANDOM and low is not None and high is not None:
        ends = data.shown(pooled.random.effect), data.shown(low), data.shown(high)
        lines.append(_Line("95 % prediction interval", ends, None, "prediction"))
    return [*lines, _Line(_heterogeneity(pooled), kind="note")]


def _heterogeneity(pooled: Pooled) -> str:
    return f"I² {rounded(100 * (pooled.i2 or 0), 2)} %, tau² {rounded(pooled.tau2, 2)}"


def _triple(estimate: Estimate, shown: Callable[[float], float]) -> tuple[float, float, float]:
    return shown(estimate.effect), shown(estimate.low), shown(estimate.high)


def _draw_lines(axes: Axes, lines: list[_Line]) -> None:
    heaviest = max((line.weight for line in lines if line.weight is not None), default=1.0)
    for y, line in enumerate(lines):
        if line.estimate is None:
            continue
        effect, low, high = line.estimate
        if line.kind == "study":
            size = 3 + 5 * np.sqrt((line.weight or 0) / heaviest)
            axes.plot([low, high], [y, y], color="black", lw=1.1, solid_capstyle="butt")
            axes.plot(effect, y, "s", color=BLUE, ms=size)
        elif line.kind == "prediction":
            axes.plot([low, high], [y, y], color="black", lw=3, solid_capstyle="butt")
        else:
            colour = {"chosen": "black", "other": "white", "subgroup": "0.6"}[line.kind]
            corners = [low, effect, high, effect], [y, y - 0.3, y, y + 0.3]
            axes.fill(*corners, fc=colour, ec="black", lw=0.9, zorder=3)
        if line.kind == "chosen":
            axes.axvline(effect, color="0.6", lw=0.8, zorder=0)


def _write(names: Axes, numbers: Axes, y: int, line: _Line) -> None:
    weight = "bold" if line.kind in ("heading", "chosen") else "normal"
    style: dict[str, Any] = {"va": "center", "fontsize": _SIZE, "fontweight": weight}
    names.text(0, y, line.label, ha="left", **style)
    if line.estimate is None:
        return
    effect, low, high = map(rounded, line.estimate)
    text = f"[{low}, {high}]" if line.kind == "prediction" else f"{effect} [{low}, {high}]"
    numbers.text(0.72, y, text, ha="right", **style)
    if line.weight is not None:
        numbers.text(1, y, f"{rounded(100 * line.weight, 1)} %", ha="right", **style)


def _limits(lines: list[_Line], published: Published | None) -> tuple[float, float]:
    drawn = [end for line in lines if line.estimate for end in line.estimate]
    if published:
        drawn += [published.low, published.high]
    low, high = min(drawn), max(drawn)
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room
