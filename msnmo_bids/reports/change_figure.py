"""Two visits side by side where lesions changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from msnmo_bids.reports.figures import CONVENTION, flair_panel
from msnmo_bids.reports.panels import Panel, Row, draw, save_svg
from msnmo_bids.reports.slices import Box, Volume, bounding_box, load_ras, section, window
from msnmo_bids.vocabulary import CHANGES

#: Okabe and Ito's palette, bright on a dark brain; what changed most first.
CHANGE_COLOURS = {
    "new": "#D55E00",
    "enlarging": "#E69F00",
    "vanished": "#009E73",
    "shrinking": "#56B4E9",
    "uncertain": "#F0E442",
    "stable": "#BBBBBB",
}
_MOST_ROWS = 6
_SHOWN = ("new", "enlarging", "vanished", "shrinking")
_OPACITY = 0.65
_DETAIL_MM = 60.0


def change_figure(
    images: Mapping[str, Path],
    table: Sequence[Mapping[str, Any]],
    names: tuple[str, str],
    out: Path,
) -> Path:
    """Draw the earlier visit, the later one and the classes of change in one section each.

    Parameters
    ----------
    images : mapping of str to Path
        ``earlier_flair``, ``later_flair`` and ``classes``, in the half-way space.
    table : sequence of mapping
        One row per lesion, with its class, volumes and centroid.
    names : tuple of str
        The visits, the earlier one first.
    out : Path
        SVG file.

    Returns
    -------
    Path
        `out`.
    """
    volumes = [load_ras(images[f"{which}_flair"]) for which in ("earlier", "later")]
    classes = load_ras(images["classes"]).data.astype(np.uint8)
    box = bounding_box((volumes[0].data > 0) & (volumes[1].data > 0), volumes[0].zooms)
    limits = [window(volume.data[volume.data > 0]) for volume in volumes]
    most = np.count_nonzero(classes, axis=(0, 1))
    first = int(np.argmax(most)) if most.any() else (box.start[2] + box.stop[2]) // 2
    rows = [_row("All lesions", volumes, classes, limits, names, first, box)]
    to_index = np.linalg.inv(volumes[0].affine)
    for lesion in _most_changed(table):
        place = to_index @ [lesion["x_mm"], lesion["y_mm"], lesion["z_mm"], 1]
        centre = np.rint(place[:3]).astype(int)
        before, after = (lesion[f"volume_{which}_mm3"] for which in ("earlier", "later"))
        title = f"Lesion {lesion['index']}, {lesion['change']}: {before:.0f} to {after:.0f} mm³"
        cut = _around(centre, volumes[0], box)
        rows.append(_row(title, volumes, classes, limits, names, int(centre[2]), cut))
    foot = f"{CONVENTION} Half-way space, 1 mm."
    return save_svg(draw(rows, foot), out)


def _most_changed(table: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the lesions to show: by class, the largest difference of volume first."""

    def rank(row: Mapping[str, Any]) -> tuple[int, float]:
        difference = abs(row["volume_later_mm3"] - row["volume_earlier_mm3"])
        return _SHOWN.index(row["change"]), -difference

    changed = [row for row in table if row["change"] in _SHOWN]
    return sorted(changed, key=rank)[:_MOST_ROWS]


def _around(centre: np.ndarray, volume: Volume, whole: Box) -> Box:
    """Return a square box around a place, inside the volume."""
    half = round(_DETAIL_MM / 2 / volume.zooms[0])
    start, stop = list(whole.start), list(whole.stop)
    for axis in (0, 1):
        size = volume.data.shape[axis]
        first = int(np.clip(centre[axis] - half, 0, max(size - 2 * half, 0)))
        start[axis], stop[axis] = first, min(first + 2 * half, size)
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _row(
    title: str,
    volumes: Sequence[Volume],
    classes: np.ndarray,
    limits: Sequence[tuple[float, float]],
    names: tuple[str, str],
    index: int,
    box: Box,
) -> Row:
    panels = [
        flair_panel(volume, "axial", index, box, limit)
        for volume, limit in zip(volumes, limits, strict=True)
    ]
    panels = [
        replace(panel, note=f"{name}, {panel.note}")
        for panel, name in zip(panels, names, strict=True)
    ]
    return Row(title, [*panels, _coloured(panels[1], section(classes, "axial", index, box))])


def _coloured(panel: Panel, classes: np.ndarray) -> Panel:
    """Lay the classes of change over a section."""
    from matplotlib.colors import to_rgba

    lookup = np.zeros((len(CHANGES) + 1, 4))
    for value, change in enumerate(CHANGES, start=1):
        lookup[value] = to_rgba(CHANGE_COLOURS[change], _OPACITY)
    return replace(panel, heat=lookup[classes], note="change")
