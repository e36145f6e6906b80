"""Overlays of masks and class activation on example scans (Fig. 8, 10 and 12 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.evaluation.drawing import DPI
from msnmo_bids.evaluation.examples import Example
from msnmo_bids.evaluation.paper_tables import label
from msnmo_bids.reports.figures import (
    CONVENTION,
    activation_panel,
    activation_reach,
    flair_panel,
)
from msnmo_bids.reports.panels import (
    BACKGROUND,
    FIGURE_WIDTH,
    FOOT_HEIGHT,
    GAP,
    TEXT_COLOUR,
    ColourBar,
    Panel,
    Row,
    draw,
)
from msnmo_bids.reports.slices import Box, bounding_box, fullest, section, window

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The paper's red, green and yellow, in shades of different lightness: with a red-green deficiency
#: they stay apart, and the outline of the manual mask tells them apart without any colour.
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = "#D7191C", "#3FE08F", "#FFE94A"
OUTLINE = "#FFFFFF"
MEANINGS = (
    (TRUE_POSITIVE, "true positive"),
    (FALSE_POSITIVE, "false positive"),
    (FALSE_NEGATIVE, "false negative"),
    (OUTLINE, "outline: manual mask"),
)
CASES = 4
_OPACITY = 0.85


def overlay_figure(examples: Sequence[Example], models: Sequence[str], out: Path) -> Path | None:
    """Draw what models found right, wrongly and not, beside the FLAIR and the manual mask.

    Parameters
    ----------
    examples : sequence of Example
        The first `CASES` that all the models have are drawn, one per row.
    models : sequence of str
        Columns, from left to right.
    out : Path
        PNG file.

    Returns
    -------
    Path or None
        `out`; None when no example has all models.
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
    return _save(figure, out)


def activation_figure(
    examples: Sequence[Example], model: str, classes: Sequence[str], out: Path
) -> Path | None:
    """Draw where a model looked for each class, beside the manual mask.

    Parameters
    ----------
    examples : sequence of Example
        The first `CASES` with class activation of the model are drawn, one per row.
    model : str
        The model.
    classes : sequence of str
        Names of the classes. Where there are several, their mean is taken from each map: what all
        classes share decides nothing.
    out : Path
        PNG file.

    Returns
    -------
    Path or None
        `out`; None when there is nothing to draw.
    """
    cases = [example for example in examples if model in example.cams][:CASES]
    if not cases:
        return None
    maps = []
    for example in cases:
        cams = example.cams[model]
        maps.append(cams - cams.mean(axis=0) if len(cams) > 1 else cams)
    reach = max(
        activation_reach(cam, example.truth, example.brain)
        for example, cams in zip(cases, maps, strict=True)
        for cam in cams
    )
    bar = ColourBar(-reach, reach, "relative class activation (logits)")
    rows = []
    for number, (example, cams) in enumerate(zip(cases, maps, strict=True), start=1):
        index = fullest(example.truth, "axial", example.brain)
        panels = _image_and_truth(example, index)
        for name, cam in zip(classes, cams, strict=True):
            panel, box = _flair(example, index)
            values, shown, truth = (
                section(part, "axial", index, box) for part in (cam, example.brain, example.truth)
            )
            drawn = activation_panel(panel, values, shown, truth, bar)
            panels.append(replace(drawn, note=f"for {name}"))
        rows.append(Row(_case(number, example), panels))
    return _save(draw(rows, f"{label(model)}. {CONVENTION}", bar), out)


def _case(number: int, example: Example) -> str:
    known = f", {example.diagnosis}" if example.diagnosis != "n/a" else ""
    return f"Case {number}: {example.name}{known}"


def _flair(example: Example, index: int) -> tuple[Panel, Box]:
    box = bounding_box(example.brain, example.image.zooms, margin_mm=2.0)
    limits = window(example.image.data[example.brain])
    return flair_panel(example.image, "axial", index, box, limits), box


def _image_and_truth(example: Example, index: int) -> list[Panel]:
    panel, box = _flair(example, index)
    truth = section(example.truth, "axial", index, box)
    marked = replace(panel, heat=_paint((truth, TRUE_POSITIVE)), note="manual mask")
    return [replace(panel, note="FLAIR"), marked]


def _compared(example: Example, model: str, index: int) -> Panel:
    panel, box = _flair(example, index)
    truth, found = (
        section(mask, "axial", index, box) for mask in (example.truth, example.predictions[model])
    )
    heat = _paint(
        (truth & found, TRUE_POSITIVE),
        (found & ~truth, FALSE_POSITIVE),
        (truth & ~found, FALSE_NEGATIVE),
    )
    return replace(panel, heat=heat, mask=truth, colour=OUTLINE, line=0.5, note=label(model))


def _paint(*layers: tuple[np.ndarray, str]) -> np.ndarray:
    """Return an RGBA picture of masks (rows, columns) in their colours."""
    from matplotlib.colors import to_rgb

    picture = np.zeros((*layers[0][0].shape, 4))
    for mask, colour in layers:
        picture[mask] = (*to_rgb(colour), _OPACITY)
    return picture


def _legend(figure: Figure) -> None:
    """Write what the colours mean at the figure's foot (its axes are in inches from the top)."""
    axes = figure.axes[0]
    y = figure.get_size_inches()[1] - FOOT_HEIGHT / 2
    step = (FIGURE_WIDTH - 2 * GAP) / len(MEANINGS)
    for number, (colour, meaning) in enumerate(MEANINGS):
        x = GAP + number * step
        hollow = colour == OUTLINE
        axes.plot(
            [x + 0.08], [y], marker="s", ms=8, ls="", mec=colour, mfc="none" if hollow else colour
        )
        axes.text(x + 0.22, y, meaning, va="center", fontsize=9, color=TEXT_COLOUR)


def _save(figure: Figure, out: Path) -> Path:
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=DPI, facecolor=BACKGROUND)
    return out
