"""The figures of a scan: brain mask, bias field, lesions, class activation.

Plain functions from files to an SVG file. Every figure is in neurological convention (the person's
left is on the left), says so, and keeps the scan's own voxels and proportions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from msnmo_bids.reports.panels import (
    BRAIN_COLOUR,
    TEXT_COLOUR,
    ColourBar,
    Panel,
    Row,
    draw,
    save_svg,
    shrink,
)
from msnmo_bids.reports.slices import (
    OBLIQUE_DEGREES,
    PLANES,
    SIDES,
    Box,
    Volume,
    bounding_box,
    evenly,
    fullest,
    load_ras,
    position_mm,
    section,
    section_size,
    spread,
    window,
)

CONVENTION = "Neurological convention: the person's left is on the left (L)."
BIAS_COLOURS = "cividis"
STRIP_LENGTH = 6
STRIP_GAP_MM = 6.0
TAGGED_LESIONS = 9
CAM_PIXELS = 96
CAM_OPACITY = 0.8
CAM_BACKGROUND = 0.65
AXIS_NAME = {"sagittal": "x", "coronal": "y", "axial": "z"}


def brain_mask_figure(flair: Path, mask: Path, out: Path) -> Path:
    """Draw the brain mask's outline over the image with its skull.

    Parameters
    ----------
    flair : Path
        Raw FLAIR, or any image on the mask's grid.
    mask : Path
        Brain mask.
    out : Path
        SVG file.

    Returns
    -------
    Path
        `out`.
    """
    volume = load_ras(flair)
    brain = load_ras(mask).data > 0.5
    head = volume.data > 0.08 * np.percentile(volume.data, 99)
    box = bounding_box(head | brain, volume.zooms, 2.0)
    limits = window(volume.data[brain])

    def row(title: str, cuts: list[tuple[str, int]]) -> Row:
        panels = []
        for plane, index in cuts:
            panel = flair_panel(volume, plane, index, box, limits)
            outline = section(brain, plane, index, box)
            panels.append(replace(panel, mask=outline, colour=BRAIN_COLOUR, line=1.0))
        return Row(title, panels)

    axial = [("axial", k) for k in evenly(brain, "axial", 4)]
    upright = [("coronal", k) for k in evenly(brain, "coronal", 1)]
    upright += [("sagittal", k) for k in evenly(brain, "sagittal", 3, trim=0.22)]
    rows = [row("Brain mask, axial", axial), row("Brain mask, coronal and sagittal", upright)]
    return save_svg(draw(rows, _foot(volume)), out)


def bias_figure(raw: Path, preproc: Path, out: Path) -> Path:
    """Draw the image before and after the bias field's correction, and the field between them.

    Parameters
    ----------
    raw : Path
        FLAIR before the correction.
    preproc : Path
        FLAIR after it, on the same grid, 0 outside the brain.
    out : Path
        SVG file.

    Returns
    -------
    Path
        `out`.
    """
    before, after = load_ras(raw), load_ras(preproc)
    brain = (after.data > 0) & (before.data > 0)
    box = bounding_box(brain, after.zooms)
    field = np.divide(before.data, after.data, out=np.ones_like(after.data), where=brain)
    if brain.any():
        field /= np.median(field[brain])
    # The corrected image is on the raw one's scale up to a factor: each gets its own window.
    limits = window(before.data[brain]), window(after.data[brain])
    spread_of_field = np.percentile(field[brain], [1, 99]) if brain.any() else [1.0, 1.0]
    reach = max(float(np.abs(np.log(spread_of_field)).max()), 0.02)
    bar = ColourBar(
        float(np.exp(-reach)), float(np.exp(reach)), "estimated bias field (factor)", BIAS_COLOURS
    )

    rows = []
    for plane in ("axial", "coronal"):
        index = fullest(brain, plane, brain)
        raw_panel = flair_panel(before, plane, index, box, limits[0])
        corrected = flair_panel(after, plane, index, box, limits[1])
        heat = bar.rgba(section(field, plane, index, box))
        heat[..., 3] = section(brain, plane, index, box)
        nothing = np.zeros_like(corrected.image)
        panels = [
            replace(raw_panel, note=f"before, {raw_panel.note}"),
            replace(corrected, note="after (brain only)"),
            replace(corrected, note="before / after", image=nothing, heat=heat),
        ]
        rows.append(Row(f"Bias field correction, {plane}", panels))
    return save_svg(draw(rows, _foot(after), bar), out)


def lesions_figure(preproc: Path, mask: Path, labels: Path, out: Path) -> Path:
    """Draw the lesions over the FLAIR at the sections that show most lesion.

    Parameters
    ----------
    preproc : Path
        FLAIR, 0 outside the brain.
    mask : Path
        Lesion mask.
    labels : Path
        Label image of the connected lesions; the largest ones get their number.
    out : Path
        SVG file.

    Returns
    -------
    Path
        `out`.
    """
    volume = load_ras(preproc)
    lesions = load_ras(mask).data > 0.5
    numbers = load_ras(labels).data.astype(np.int32)
    brain = volume.data > 0
    box = bounding_box(brain, volume.zooms)
    limits = window(volume.data[brain])

    def marked(plane: str, index: int, *, tagged: bool = True) -> Panel:
        panel = flair_panel(volume, plane, index, box, limits)
        drawn = section(lesions, plane, index, box)
        tags = _tags(section(numbers, plane, index, box)) if tagged else ()
        return replace(panel, mask=drawn, fill=0.22, tags=tags)

    cuts = [(plane, fullest(lesions, plane, brain)) for plane in PLANES]
    gap = max(1, round(STRIP_GAP_MM / volume.zooms[2]))
    strip = spread(lesions, brain, "axial", STRIP_LENGTH, gap)
    found = "sections with most lesion" if lesions.any() else "no lesion found"
    rows = [
        Row(f"FLAIR, {found}", [flair_panel(volume, *cut, box, limits) for cut in cuts]),
        Row("Lesions (numbers as in the table)", [marked(*cut) for cut in cuts]),
        Row("Further axial sections", [marked("axial", k, tagged=False) for k in strip]),
    ]
    return save_svg(draw(rows, _foot(volume)), out)


def cam_figure(preproc: Path, lesion_mask: Path, cams: Mapping[str, Path], out: Path) -> Path:
    """Draw the class activation maps over the FLAIR, at the sections of :func:`lesions_figure`.

    Parameters
    ----------
    preproc : Path
        FLAIR, 0 outside the brain.
    lesion_mask : Path
        Lesion mask, drawn as an outline.
    cams : mapping of str to Path
        Class activation map of each class; one row per class, one colour scale for all. Where there
        are several, their mean is taken from each: what all classes share decides nothing.
    out : Path
        SVG file.

    Returns
    -------
    Path
        `out`.
    """
    volume = load_ras(preproc)
    lesions = load_ras(lesion_mask).data > 0.5
    brain = volume.data > 0
    box = bounding_box(brain, volume.zooms)
    limits = window(volume.data[brain])
    maps = {name: load_ras(path).data for name, path in cams.items()}
    if len(maps) > 1:
        common = sum(maps.values()) / len(maps)
        maps = {name: data - common for name, data in maps.items()}
    reach = max((activation_reach(data, lesions, brain) for data in maps.values()), default=1.0)
    bar = ColourBar(-reach, reach, "relative class activation (logits)")

    rows = []
    for name, data in maps.items():
        panels = []
        for plane in PLANES:
            index = fullest(lesions, plane, brain)
            values, shown, drawn = (
                section(part, plane, index, box) for part in (data, brain, lesions)
            )
            panel = flair_panel(volume, plane, index, box, limits)
            panels.append(activation_panel(panel, values, shown, drawn, bar))
        rows.append(Row(f"Class activation, {name} (lesions outlined)", panels))
    return save_svg(draw(rows, _foot(volume), bar), out)


def flair_panel(
    volume: Volume, plane: str, index: int, box: Box, limits: tuple[float, float]
) -> Panel:
    """Return a section of an image in grey.

    Parameters
    ----------
    volume : Volume
        FLAIR.
    plane : {"axial", "coronal", "sagittal"}
        Direction of the cut.
    index : int
        Voxel index across it.
    box : Box
        Part that is shown.
    limits : tuple of float
        Values that are black and white.

    Returns
    -------
    Panel
        With its position (mm) as note.
    """
    values = section(volume.data, plane, index, box)
    grey = np.clip((values - limits[0]) / (limits[1] - limits[0]), 0, 1)
    note = f"{AXIS_NAME[plane]} = {position_mm(volume, plane, index):.0f} mm"
    return Panel(grey, section_size(volume.zooms, plane, box), SIDES[plane], note)


def activation_panel(
    panel: Panel, values: np.ndarray, brain: np.ndarray, lesions: np.ndarray, bar: ColourBar
) -> Panel:
    """Lay class activation and the lesions' outlines over a section.

    Parameters
    ----------
    panel : Panel
        FLAIR.
    values : ndarray, (rows, columns)
        Class activation; the stronger, the less transparent.
    brain, lesions : ndarray of bool, (rows, columns)
        Where activation is shown, and what is outlined.
    bar : ColourBar
        From -reach to reach.

    Returns
    -------
    Panel
    """
    heat = bar.rgba(values)
    heat[..., 3] = np.clip(np.abs(values) / bar.high, 0, 1) * CAM_OPACITY * brain
    return replace(
        panel,
        image=CAM_BACKGROUND * panel.image,
        heat=shrink(heat, CAM_PIXELS),
        mask=lesions,
        colour=TEXT_COLOUR,
        line=0.6,
    )


def activation_reach(values: np.ndarray, lesions: np.ndarray, brain: np.ndarray) -> float:
    """Return the magnitude that gets the strongest colour; never 0.

    A few voxels reach twice what is usual in lesions and would leave all others pale.
    """
    magnitudes = [
        float(np.percentile(np.abs(values[where]), percentile))
        for where, percentile in ((lesions, 95), (brain, 99.5))
        if where.any()
    ]
    return max(magnitudes, default=0.0) or 1.0


def _tags(numbers: np.ndarray) -> tuple[tuple[float, float, str], ...]:
    """Return the numbers of the largest lesions of a section, each beside its lesion."""
    tags = []
    for number in np.unique(numbers[(numbers > 0) & (numbers <= TAGGED_LESIONS)]):
        rows, columns = np.nonzero(numbers == number)
        down = (rows.min() + 0.0) / numbers.shape[0]
        right = (columns.max() + 1.5) / numbers.shape[1]
        tags.append((down, right, str(number)))
    return tuple(tags)


def _foot(volume: Volume) -> str:
    zooms = " × ".join(f"{zoom:.2g}" for zoom in volume.zooms)
    oblique = volume.obliquity
    tilt = f", oblique by {oblique:.0f}°" if oblique > OBLIQUE_DEGREES else ""
    return f"{CONVENTION} Voxels {zooms} mm{tilt}."
