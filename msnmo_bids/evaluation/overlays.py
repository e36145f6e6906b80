"""Example scans that a cross-validation keeps, and overlays on them (Fig. 8, 10 and 12)."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from msnmo_bids.errors import BadInputError
from msnmo_bids.evaluation.crossval import REFERENCE, CrossValidation
from msnmo_bids.evaluation.tables import label
from msnmo_bids.reports.figures import CONVENTION, activation_panel, activation_reach
from msnmo_bids.reports.panels import (
    FIGURE_WIDTH,
    FOOT_HEIGHT,
    GAP,
    TEXT_COLOUR,
    ColourBar,
    Panel,
    Row,
    draw,
    save_png,
)
from msnmo_bids.reports.slices import (
    Box,
    Volume,
    bounding_box,
    flair_panel,
    fullest,
    section,
    window,
)

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


@dataclass
class Example:
    """One test scan, with what the models found in it.

    Parameters
    ----------
    name : str
        Stem of its files.
    diagnosis : str
        True class, ``n/a`` when it is not known.
    image : Volume
        z-scores, outside the brain as dark as the darkest voxel; in mm from the corner.
    brain : ndarray of bool, (X, Y, Z)
        Where the image is not background.
    truth : ndarray of bool, (X, Y, Z)
        Manual mask.
    predictions : dict of str to ndarray of bool, (X, Y, Z)
        By model.
    cams : dict of str to ndarray, (K, X, Y, Z)
        Class activation of each class, by model.
    """

    name: str
    diagnosis: str
    image: Volume
    brain: np.ndarray
    truth: np.ndarray
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    cams: dict[str, np.ndarray] = field(default_factory=dict)


def read_examples(found: CrossValidation) -> list[Example]:
    """Read the examples of all models that have a manual mask; those of one scan become one.

    Those that most models have come first, then by name, the diagnoses in turn.

    Raises
    ------
    BadInputError
        If a file lacks an array, or differs in shape from another model's of the same scan.
    """
    examples: dict[tuple[str, str], Example] = {}
    for model in found.models.values():
        for fold, folder in model.folds.items():
            for file in sorted((folder / "examples").glob("*.npz")):
                _add(examples, (fold, file.stem), model.name, file, model.scans)
    ordered = sorted(
        (example for example in examples.values() if example.truth.any()),
        key=lambda e: (-len(e.predictions), -len(e.cams), e.name),
    )
    turn: Counter[str] = Counter()
    places = []
    for example in ordered:
        places.append((turn[example.diagnosis], example.diagnosis))
        turn[example.diagnosis] += 1
    return [ordered[k] for k in sorted(range(len(ordered)), key=places.__getitem__)]


def _add(
    examples: dict[tuple[str, str], Example],
    key: tuple[str, str],
    model: str,
    file: Path,
    scans: pd.DataFrame,
) -> None:
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BadInputError(f"cannot be read ({error})", file=file) from error
    if lacking := {"image", "zooms"} - set(arrays):
        raise BadInputError(f"arrays are missing: {', '.join(sorted(lacking))}", file=file)
    if "truth" not in arrays:
        return
    if key not in examples:
        examples[key] = _example(file.stem, arrays, _diagnosis(file.stem, scans))
    example = examples[key]
    for name in ("truth", "prediction", "cams"):
        if name in arrays and arrays[name].shape[-3:] != example.image.data.shape:
            raise BadInputError(f"{name} has another shape than the image", file=file)
    if "prediction" in arrays:
        example.predictions[model] = arrays["prediction"] > 0
    if "cams" in arrays:
        example.cams[model] = arrays["cams"].astype(np.float32)


def _example(name: str, arrays: dict[str, np.ndarray], diagnosis: str) -> Example:
    """Read image and mask; the background, a mid-grey 0 among z-scores, becomes dark."""
    image = arrays["image"].astype(np.float32)
    brain = image != 0
    dark = np.where(brain, image, image.min(initial=0.0))
    affine = np.diag([*np.asarray(arrays["zooms"], float).ravel()[:3], 1.0])
    return Example(name, diagnosis, Volume(dark, affine), brain, arrays["truth"] > 0)


def _diagnosis(stem: str, scans: pd.DataFrame) -> str:
    """Find an example's diagnosis by the name of its scan, or by that of the subject in it."""
    for column in ("scan", "participant_id"):
        hits = [name for name in scans[column] if name and (name == stem or name in stem)]
        if len(set(hits)) == 1:
            return str(scans["diagnosis"][scans[column] == hits[0]].iloc[0])
    return "n/a"


def model_of_cams(examples: list[Example]) -> str | None:
    """Return the model whose class activation is drawn: the joint one if it is there."""
    names = {name for example in examples for name in example.cams}
    return REFERENCE if REFERENCE in names else min(names, default=None)


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
    examples: Sequence[Example], model: str, classes: Sequence[str], out: Path
) -> Path | None:
    """Draw where a model looked for each class, beside the manual mask (PNG).

    The first `CASES` with class activation of the model are drawn, one per row; None without any.
    Where there are several classes, their mean is taken from each map: what all classes share
    decides nothing.
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
    return save_png(draw(rows, f"{label(model)}. {CONVENTION}", bar), out)


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
