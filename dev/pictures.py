"""Slices of every scan with the manual mask and the one found: the figure behind a figure.

``python -m dev.leave_one_source_out OUT ... --pictures FOLDER`` writes one image per scan: the
slices with most disagreement, top to bottom of the head, the manual outline in green and the one
found in red.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

SLICES = 8


def disagreeing_slices(truth: np.ndarray, found: np.ndarray, count: int = SLICES) -> list[int]:
    """Choose the axial slices with most voxels in one mask only, far enough from each other.

    The masks are bool, (X, Y, Z) in RAS order; the slices are named from the top of the head down.
    """
    apart = max(truth.shape[2] // (4 * count), 1)
    left = (truth != found).sum(axis=(0, 1)).astype(float)
    chosen: list[int] = []
    while len(chosen) < count and left.max() > 0:
        here = int(left.argmax())
        chosen.append(here)
        left[max(here - apart, 0) : here + apart + 1] = 0
    return sorted(chosen, reverse=True)


def draw(image: np.ndarray, truth: np.ndarray, found: np.ndarray, title: str, target: Path) -> None:
    """Draw the slices of a scan: the FLAIR, background 0, and masks, all (X, Y, Z) in RAS order.

    The title has its name and figures.
    """
    truth, found = truth > 0, found > 0
    slices = disagreeing_slices(truth, found) or [image.shape[2] // 2]
    inside = image[image != 0]
    low, high = np.percentile(inside, (1, 99.7)) if inside.size else (0.0, 1.0)
    columns = min(len(slices), 4)
    rows = -(-len(slices) // columns)
    figure = Figure(figsize=(4 * columns, 4.8 * rows), facecolor="black", layout="constrained")
    figure.suptitle(title, color="white")
    for number, place in enumerate(slices):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.imshow(image[:, :, place].T, cmap="gray", vmin=low, vmax=high, origin="lower")
        for mask, colour in ((truth, "lime"), (found, "red")):
            if mask[:, :, place].any():
                axes.contour(mask[:, :, place].T, [0.5], colors=colour, linewidths=0.8)
        axes.axis("off")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=70)
