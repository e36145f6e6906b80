"""A contact sheet of simulated scans: each as a row of sections, its true lesions outlined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from msnmo_bids.simulation.sample import SimulatedScan

#: Heights of the axial sections, as shares of the brain from its lowest slice.
_LEVELS = (0.15, 0.3, 0.42, 0.54, 0.66, 0.8)
_SIDE = 160  # pixels of a panel
_OUTLINE = (255, 120, 0)


def draw_panels(scan: SimulatedScan) -> np.ndarray:
    """Draw a scan as a row of sections: six axial ones, a coronal and a sagittal one.

    Parameters
    ----------
    scan : SimulatedScan
        The scan.

    Returns
    -------
    ndarray, (160, 1280, 3), uint8
        Neurological: the person's left is on the left.
    """
    brain = scan.brain_mask
    levels = np.flatnonzero(brain.any(axis=(0, 1)))
    bottom, top = (levels[0], levels[-1]) if levels.size else (0, brain.shape[2] - 1)
    bright = float(np.quantile(scan.image[brain], 0.995)) * 1.1 if brain.any() else 1.0
    sections = [(2, round(bottom + share * (top - bottom))) for share in _LEVELS]
    sections += [(1, brain.shape[1] // 2), (0, brain.shape[0] // 2 + 3)]
    panels = [_panel(scan, axis, index, bright) for axis, index in sections]
    return np.concatenate(panels, axis=1)


def _panel(scan: SimulatedScan, axis: int, index: int, bright: float) -> np.ndarray:
    zooms = np.delete(scan.zooms, axis)
    grey = np.take(scan.image, index, axis).T[::-1] / bright
    lesion = np.take(scan.lesion_mask, index, axis).T[::-1]
    size = np.array(grey.shape) * zooms[::-1]  # mm, vertical first
    factor = (_SIDE - 2) / size.max() * zooms[::-1]
    grey = np.clip(ndimage.zoom(grey, factor, order=1, grid_mode=True, mode="nearest"), 0, 1)
    lesion = ndimage.zoom(lesion, factor, order=0, grid_mode=True, mode="nearest") > 0
    panel = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    start = (_SIDE - np.array(grey.shape)) // 2
    window = tuple(slice(s, s + n) for s, n in zip(start, grey.shape, strict=True))
    panel[window] = (grey * 255).astype(np.uint8)[..., None]
    panel[window][ndimage.binary_dilation(lesion) & ~lesion] = _OUTLINE
    return panel


def save_contact_sheet(rows: Sequence[tuple[str, np.ndarray]], path: Path, most: int = 60) -> None:
    """Save the rows of several scans as one picture.

    Parameters
    ----------
    rows : sequence of (str, ndarray)
        Title and `draw_panels` of each scan.
    path : Path
        PNG to write.
    most : int, optional
        Show no more scans than these.
    """
    from matplotlib.figure import Figure

    rows = rows[:most]
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = rows[0][1].shape[:2]
    figure = Figure(figsize=(width / 110, len(rows) * (height + 22) / 110), dpi=110)
    axes = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axis, (title, picture) in zip(axes, rows, strict=True):
        axis.imshow(picture, aspect="equal", interpolation="nearest")
        axis.set_title(title, fontsize=9, loc="left", pad=3)
        axis.set_axis_off()
    figure.subplots_adjust(
        left=0, right=1, bottom=0, top=1 - 18 / (len(rows) * (height + 22)), hspace=22 / height
    )
    figure.savefig(path, metadata={"Software": None})
