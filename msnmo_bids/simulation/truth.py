"""What is known of a simulated scan: lesions with kind, region and change; a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from msnmo_bids.bids.sidecars import described
from msnmo_bids.lesions.regions import CORTEX, DEEP, FOURTH_VENTRICLE, VENTRICLE, assign_regions
from msnmo_bids.lesions.regions import INFRATENTORIAL as BELOW_TENTORIUM
from msnmo_bids.simulation.anatomy import BRAIN, INFRATENTORIAL, Tissue
from msnmo_bids.simulation.sample import SimulatedScan

LESION_COLUMNS = {
    "index": described("Value in the label image; a lesion keeps it at all visits"),
    "name": described("Name of the lesion"),
    "kind": described("What was simulated"),
    "region": described("Region, by the rule of the app on the true tissues"),
    "x_mm": described("Centre of mass, to the right", "mm"),
    "y_mm": described("Centre of mass, to the front", "mm"),
    "z_mm": described("Centre of mass, upwards", "mm"),
    "volume_mm3": described("Volume on the grid of the scan", "mm^3"),
    "change": described(
        "Since the visit before; n/a at the first visit. A vanished lesion has a volume of 0",
        Levels={
            "new": "appeared",
            "stable": "unchanged",
            "enlarging": "grown at its border",
            "shrinking": "shrunk at its border",
            "vanished": "gone since this or an earlier visit",
        },
    ),
}

#: Heights of the axial sections, as shares of the brain from its lowest slice.
_LEVELS = (0.15, 0.3, 0.42, 0.54, 0.66, 0.8)
_SIDE = 160  # pixels of a panel
_OUTLINE = (255, 120, 0)
_MOST_ROWS = 60


def lesion_table(scan: SimulatedScan, affine: np.ndarray | None = None) -> list[dict[str, Any]]:
    """List the lesions of a scan, with the keys of `LESION_COLUMNS`.

    `affine`, (4, 4), brings the index (RAS order) to scanner mm, if it is not the scan's own: a
    tilted scan. A lesion that lies under others, or between thick slices, and therefore has no
    voxel is left out.
    """
    affine = scan.affine if affine is None else affine
    labels = scan.lesion_labels
    voxel = float(np.prod(scan.zooms))
    regions = assign_regions(labels, region_codes(scan.tissue), scan.zooms.tolist())
    index = np.argwhere(labels)
    numbers = labels[tuple(index.T)]
    rows = []
    for record in sorted(scan.lesions.records, key=lambda record: record.label):
        row: dict[str, Any] = {"index": record.label, "name": f"lesion {record.label}"}
        row |= {"kind": record.kind, "change": record.change}
        own = index[numbers == record.label]
        if own.size:
            centre = (affine[:3, :3] @ own.mean(axis=0) + affine[:3, 3]).tolist()
            row |= dict(zip(("x_mm", "y_mm", "z_mm"), (round(v, 2) for v in centre), strict=True))
            row |= {"region": regions[record.label], "volume_mm3": round(len(own) * voxel, 2)}
            rows.append(row)
        elif record.change == "vanished":
            rows.append(row | {"volume_mm3": 0.0})
    return rows


def region_codes(tissue: np.ndarray) -> np.ndarray:
    """Turn values of `Tissue`, (X, Y, Z), into the codes of the app's region map, int8.

    They are those that :func:`msnmo_bids.lesions.regions.locate_regions` gives.
    """
    lookup = np.zeros(max(Tissue) + 1, np.int8)
    lookup[list(BRAIN)] = DEEP
    lookup[[Tissue.LATERAL_VENTRICLE, Tissue.THIRD_VENTRICLE]] = VENTRICLE
    lookup[list(INFRATENTORIAL)] = BELOW_TENTORIUM
    lookup[Tissue.FOURTH_VENTRICLE] = FOURTH_VENTRICLE
    lookup[Tissue.CORTEX] = CORTEX
    return lookup[tissue]


def tissue_table() -> list[dict[str, Any]]:
    """List the values of the tissue image and their names."""
    return [
        {"index": int(kind), "name": kind.name.lower().replace("_", " ")}
        for kind in Tissue
        if kind is not Tissue.AIR
    ]


def draw_panels(scan: SimulatedScan) -> np.ndarray:
    """Draw a scan as a row of sections: six axial ones, a coronal and a sagittal one.

    (160, 1280, 3) uint8, neurological: the person's left is on the left.
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


def save_contact_sheet(rows: Sequence[tuple[str, np.ndarray]], path: Path) -> None:
    """Save `draw_panels` of several scans, `_MOST_ROWS` at most, with their titles as one PNG."""
    from matplotlib.figure import Figure

    rows = rows[:_MOST_ROWS]
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
