"""The figures of a scan (brain mask, bias field, lesions, class activation), and of two visits.

Plain functions from files to an SVG file, `out`, which they return. Every figure is in neurological
convention (the person's left is on the left), says so, and keeps the voxels' proportions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    Box,
    Volume,
    bounding_box,
    evenly,
    flair_panel,
    fullest,
    load_ras,
    section,
    spread,
    window,
)
from msnmo_bids.vocabulary import CHANGES

PLANES = ("axial", "coronal", "sagittal")
OBLIQUE_DEGREES = 3.0
CONVENTION = "Neurological convention: the person's left is on the left (L)."
#: Okabe and Ito's palette, bright on a dark brain; what changed most first.
CHANGE_COLOURS = {
    "new": "#D55E00",
    "enlarging": "#E69F00",
    "vanished": "#009E73",
    "shrinking": "#56B4E9",
    "uncertain": "#F0E442",
    "stable": "#BBBBBB",
}
ACTIVATION = "relative class activation (logits)"
BIAS_COLOURS = "cividis"
STRIP_LENGTH = 6
STRIP_GAP_MM = 6.0
TAGGED_LESIONS = 9
CAM_PIXELS = 96
CAM_OPACITY = 0.8
CAM_BACKGROUND = 0.65
CHANGES_DRAWN = ("new", "enlarging", "vanished", "shrinking")
CHANGE_ROWS = 6
CHANGE_OPACITY = 0.65
CHANGE_MM = 60.0  # side of the square around a changed lesion


def brain_mask_figure(flair: Path, mask: Path, out: Path) -> Path:
    """Draw the brain mask's outline over the raw FLAIR, or any image on the mask's grid."""
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
    """Draw the FLAIR before and after the bias field's correction, and the field between them.

    Both are on one grid; `preproc` is 0 outside the brain.
    """
    before, after = load_ras(raw), load_ras(preproc)
    brain = (after.data > 0) & (before.data > 0)
    box = bounding_box(brain, after.zooms)
    field = np.divide(before.data, after.data, out=np.ones_like(after.data), where=brain)
    if brain.any():
        field /= np.median(field[brain])
    # The corrected image is on the raw one's scale up to a factor: each gets its own window.
    limits = window(before.data[brain]), window(after.data[brain])
    ends = np.percentile(field[brain], [1, 99]) if brain.any() else [1.0, 1.0]
    reach = max(float(np.abs(np.log(ends)).max()), 0.02)
    low, high = float(np.exp(-reach)), float(np.exp(reach))
    bar = ColourBar(low, high, "estimated bias field (factor)", BIAS_COLOURS)

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
    """Draw the lesions over the FLAIR (0 outside the brain) at the sections with most lesion.

    Of the connected lesions, `labels`, the largest get their number.
    """
    volume, brain, box, limits = _stripped(preproc)
    lesions = load_ras(mask).data > 0.5
    numbers = load_ras(labels).data.astype(np.int32)

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

    The FLAIR is 0 outside the brain; the lesion mask is drawn as an outline. The map of each class
    is drawn as :func:`relative_activation`; one row per class, one colour scale for all.
    """
    volume, brain, box, limits = _stripped(preproc)
    lesions = load_ras(lesion_mask).data > 0.5
    maps = relative_activation({name: load_ras(path).data for name, path in cams.items()})
    reach = max((activation_reach(data, lesions, brain) for data in maps.values()), default=1.0)
    bar = ColourBar(-reach, reach, ACTIVATION)

    rows = []
    for name, data in maps.items():
        panels = []
        for plane in PLANES:
            index = fullest(lesions, plane, brain)
            panel = flair_panel(volume, plane, index, box, limits)
            cut = [section(part, plane, index, box) for part in (data, brain, lesions)]
            panels.append(activation_panel(panel, bar, *cut))
        rows.append(Row(f"Class activation, {name} (lesions outlined)", panels))
    return save_svg(draw(rows, _foot(volume), bar), out)


def _stripped(preproc: Path) -> tuple[Volume, np.ndarray, Box, tuple[float, float]]:
    """Read a FLAIR that is 0 outside the brain: volume, brain, its box, its window."""
    volume = load_ras(preproc)
    brain = volume.data > 0
    return volume, brain, bounding_box(brain, volume.zooms), window(volume.data[brain])


def relative_activation(maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Take the mean of several classes from each one's map: what all share decides nothing."""
    common = sum(maps.values()) / len(maps) if len(maps) > 1 else 0
    return {name: data - common for name, data in maps.items()}


def change_figure(
    images: Mapping[str, Path],
    table: Sequence[Mapping[str, Any]],
    names: tuple[str, str],
    out: Path,
) -> Path:
    """Draw the earlier visit, the later one and the classes of change in one section each.

    The images, ``earlier_flair``, ``later_flair`` and ``classes``, are in the half-way space. The
    table has one row per lesion, with its class, volumes and centroid; `names` are the visits, the
    earlier one first.
    """
    volumes = [load_ras(images[f"{which}_flair"]) for which in ("earlier", "later")]
    classes = load_ras(images["classes"]).data.astype(np.uint8)
    whole = bounding_box((volumes[0].data > 0) & (volumes[1].data > 0), volumes[0].zooms)
    limits = [window(volume.data[volume.data > 0]) for volume in volumes]

    def row(title: str, index: int, box: Box) -> Row:
        panels = []
        for volume, limit, name in zip(volumes, limits, names, strict=True):
            panel = flair_panel(volume, "axial", index, box, limit)
            panels.append(replace(panel, note=f"{name}, {panel.note}"))
        heat = _change_colours(section(classes, "axial", index, box))
        return Row(title, [*panels, replace(panels[1], heat=heat, note="change")])

    most = np.count_nonzero(classes, axis=(0, 1))
    first = int(np.argmax(most)) if most.any() else (whole[2].start + whole[2].stop) // 2
    rows = [row("All lesions", first, whole)]
    to_index = np.linalg.inv(volumes[0].affine)
    for lesion in _most_changed(table):
        place = to_index @ [lesion["x_mm"], lesion["y_mm"], lesion["z_mm"], 1]
        centre = np.rint(place[:3]).astype(int)
        before, after = (lesion[f"volume_{which}_mm3"] for which in ("earlier", "later"))
        title = f"Lesion {lesion['index']}, {lesion['change']}: {before:.0f} to {after:.0f} mm³"
        rows.append(row(title, int(centre[2]), _around(centre, volumes[0], whole)))
    return save_svg(draw(rows, f"{CONVENTION} Half-way space, 1 mm."), out)


def _most_changed(table: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the lesions to show: by class, the largest difference of volume first."""

    def rank(row: Mapping[str, Any]) -> tuple[int, float]:
        difference = abs(row["volume_later_mm3"] - row["volume_earlier_mm3"])
        return CHANGES_DRAWN.index(row["change"]), -difference

    changed = [row for row in table if row["change"] in CHANGES_DRAWN]
    return sorted(changed, key=rank)[:CHANGE_ROWS]


def _around(centre: np.ndarray, volume: Volume, whole: Box) -> Box:
    """Return a square box around a place, inside the volume."""
    half = round(CHANGE_MM / 2 / volume.zooms[0])
    size = np.array(volume.data.shape[:2])
    first = np.clip(centre[:2] - half, 0, np.maximum(size - 2 * half, 0))
    last = np.minimum(first + 2 * half, size)
    return (*map(slice, first.tolist(), last.tolist()), whole[2])


def _change_colours(classes: np.ndarray) -> np.ndarray:
    """Return RGBA of the classes of change of a section, from 1; 0 is transparent."""
    from matplotlib.colors import to_rgba

    drawn = [to_rgba(CHANGE_COLOURS[change], CHANGE_OPACITY) for change in CHANGES]
    return np.array([(0, 0, 0, 0), *drawn])[classes]


def activation_panel(
    panel: Panel, bar: ColourBar, values: np.ndarray, brain: np.ndarray, lesions: np.ndarray
) -> Panel:
    """Lay class activation, the stronger the less transparent, and outlines over a section.

    `values`, `brain` (where activation is shown) and `lesions` (outlined) are (rows, columns);
    `bar` goes from -reach to reach.
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
