"""Figures of a cross-validation: ROC curves, calibration, overlays, class activation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.evaluation.crossval_results import REFERENCE, RULE, CrossValidation, Example, label
from msnmo_bids.evaluation.measures import Measure, classified
from msnmo_bids.evaluation.metrics import calibration_bins
from msnmo_bids.reports.figures import (
    ACTIVATION,
    CONVENTION,
    activation_panel,
    activation_reach,
    relative_activation,
)
from msnmo_bids.reports.panels import (
    DPI,
    FIGURE_WIDTH,
    FOOT_HEIGHT,
    GAP,
    TEXT_COLOUR,
    ColourBar,
    Panel,
    Row,
    draw,
    save_png,
    style,
)
from msnmo_bids.reports.slices import bounding_box, flair_panel, fullest, section, window

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Okabe and Ito's palette, without its black (the joint model's) and its yellow (pale on white).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P")

#: The paper's red, green and yellow, in shades of different lightness: with a red-green deficiency
#: they stay apart, and the outline of the manual mask tells them apart without any colour.
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = "#D7191C", "#3FE08F", "#FFE94A"
OUTLINE = "#FFFFFF"
MEANINGS = {
    TRUE_POSITIVE: "true positive",
    FALSE_POSITIVE: "false positive",
    FALSE_NEGATIVE: "false negative",
    OUTLINE: "outline: manual mask",
}
CASES = 4

_CALIBRATION_BINS = 5
_OPACITY = 0.85


@contextmanager
def figure_file(size: tuple[float, float], *out: Path) -> Iterator[Figure]:
    """Give a figure of `size` (inches) and write it at the end, as PNG or SVG by the suffix.

    Equal figures are equal files.
    """
    from matplotlib.figure import Figure

    own = {"axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "msnmo"}
    with style(own):
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
            if model == RULE:
                text = f"{label(model)}: one point"
                axes.plot(rates[0][1:-1], rates[1][1:-1], "kX", ms=10, label=text)
            else:
                text = " ".join([f"{label(model)}, AUC", *measures[model]["auc"].text(digits=2)])
                axes.plot(*rates, label=text, **_style(model, number))
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", title=title)
        axes.set(xlabel="1 − specificity", ylabel=f"sensitivity ({found.positive})")
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
            marker = "o" if model == REFERENCE else MARKERS[number % len(MARKERS)]
            line = _style(model, number)
            axes.plot(mean, observed, marker=marker, ms=5, label=label(model), **line)
        shown = REFERENCE if REFERENCE in drawn else next(iter(drawn))
        edges = np.linspace(0, 1, 21).tolist()
        counts.hist(drawn[shown]["score"], bins=edges, color="0.35", edgecolor="white")
        counts.set(xlabel=f"probability of {found.positive}", xlim=(-0.01, 1.01))
        counts.set(ylabel=f"scans\n({label(shown)})")
        counts.yaxis.get_major_locator().set_params(integer=True)
        axes.set(ylim=(-0.02, 1.02), ylabel=f"share of {found.positive}", title="Calibration")
        axes.legend(fontsize=8, loc="upper left")
    return out


def _with_both_classes(found: CrossValidation, models: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return the classified scans of the models that can have a ROC curve, the joint one last."""
    ordered = sorted(models, key=lambda name: name == REFERENCE)
    tables = {m: classified(found, found.models[m].scans) for m in ordered if m in found.models}
    return {model: scans for model, scans in tables.items() if scans["positive"].nunique() == 2}


def _style(model: str, number: int) -> dict[str, Any]:
    if model == REFERENCE:
        return {"color": "black", "lw": 2.6, "zorder": 3}
    dashes = STYLES[(number + number // len(COLOURS)) % len(STYLES)]  # no pair twice among 18
    return {"color": COLOURS[number % len(COLOURS)], "ls": dashes, "lw": 1.6}


#: What the colours of an overlay mean.
OVERLAY = (
    "Red: true positive; green: false positive; yellow: false negative. Whatever is inside the "
    "outline belongs to the manual mask. The axial section with most lesion."
)


def overlay_figure(examples: Sequence[Example], models: Sequence[str], out: Path) -> Path | None:
    """Draw what models found right, wrongly and not, beside the FLAIR and the manual mask (PNG).

    The first `CASES` of the examples that all the models have are drawn, one per row, the models
    from left to right; None when no example has all models.
    """
    cases = [e for e in examples if models and all(m in e.predictions for m in models)][:CASES]
    if not cases:
        return None
    rows = []
    for number, example in enumerate(cases, start=1):
        found = np.logical_or.reduce([example.predictions[model] for model in models])
        index = fullest(example.truth | found, "axial", example.brain)
        panels = _image_and_truth(example, index)
        panels += [_compared(example, model, index) for model in models]
        rows.append(Row(_case(number, example), panels))
    figure = draw(rows, "")
    _legend(figure)
    return save_png(figure, out)


def activation_figure(
    found: CrossValidation, examples: Sequence[Example], out: Path
) -> Path | None:
    """Draw where a classifier looked for each class, beside the manual mask (PNG).

    The model is the joint one if it has class activation, else the first that has. The first
    `CASES` are drawn, one per row; None without any.
    """
    names = {name for example in examples for name in example.cams}
    model = REFERENCE if REFERENCE in names else min(names, default="")
    cases = [example for example in examples if model in example.cams][:CASES]
    if not cases:
        return None
    maps = [
        relative_activation(dict(zip(found.classes, example.cams[model], strict=True)))
        for example in cases
    ]
    reach = max(
        activation_reach(cam, example.truth, example.brain)
        for example, cams in zip(cases, maps, strict=True)
        for cam in cams.values()
    )
    bar = ColourBar(-reach, reach, ACTIVATION)
    rows = []
    for number, (example, cams) in enumerate(zip(cases, maps, strict=True), start=1):
        index = fullest(example.truth, "axial", example.brain)
        panels = _image_and_truth(example, index)
        for name, cam in cams.items():
            panel, cut = _flair(example, index)
            parts = map(cut, (cam, example.brain, example.truth))
            panels.append(replace(activation_panel(panel, bar, *parts), note=f"for {name}"))
        rows.append(Row(_case(number, example), panels))
    return save_png(draw(rows, f"{label(model)}. {CONVENTION}", bar), out)


def _case(number: int, example: Example) -> str:
    known = f", {example.diagnosis}" if example.diagnosis != "n/a" else ""
    return f"Case {number}: {example.name}{known}"


def _flair(example: Example, index: int) -> tuple[Panel, Callable[[np.ndarray], np.ndarray]]:
    """Draw an axial section of the brain, and return how to cut it out of another volume."""
    box = bounding_box(example.brain, example.image.zooms, margin_mm=2.0)
    limits = window(example.image.data[example.brain])
    panel = flair_panel(example.image, "axial", index, box, limits)
    return panel, lambda data: section(data, "axial", index, box)


def _image_and_truth(example: Example, index: int) -> list[Panel]:
    panel, cut = _flair(example, index)
    heat = _paint({TRUE_POSITIVE: cut(example.truth)})
    marked = replace(panel, heat=heat, note="manual mask")
    return [replace(panel, note="FLAIR"), marked]


def _compared(example: Example, model: str, index: int) -> Panel:
    panel, cut = _flair(example, index)
    truth, found = map(cut, (example.truth, example.predictions[model]))
    right, wrong, missed = truth & found, found & ~truth, truth & ~found
    heat = _paint({TRUE_POSITIVE: right, FALSE_POSITIVE: wrong, FALSE_NEGATIVE: missed})
    return replace(panel, heat=heat, mask=truth, colour=OUTLINE, line=0.5, note=label(model))


def _paint(layers: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return an RGBA picture of masks (rows, columns) by their colours."""
    from matplotlib.colors import to_rgb

    picture = np.zeros((*next(iter(layers.values())).shape, 4))
    for colour, mask in layers.items():
        picture[mask] = (*to_rgb(colour), _OPACITY)
    return picture


def _legend(figure: Figure) -> None:
    """Write what the colours mean at the figure's foot (its axes are in inches from the top)."""
    axes = figure.axes[0]
    y = figure.get_size_inches()[1] - FOOT_HEIGHT / 2
    step = (FIGURE_WIDTH - 2 * GAP) / len(MEANINGS)
    for number, (colour, meaning) in enumerate(MEANINGS.items()):
        x, fill = GAP + number * step, "none" if colour == OUTLINE else colour
        axes.plot([x + 0.08], [y], marker="s", ms=8, ls="", mec=colour, mfc=fill)
        axes.text(x + 0.22, y, meaning, va="center", fontsize=9, color=TEXT_COLOUR)
