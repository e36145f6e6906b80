"""Slices of every scan with the manual mask and the one found: the figure behind a figure.

``python -m dev.leave_one_source_out OUT ... --pictures FOLDER`` writes one image per scan: the
slices with most disagreement, top to bottom of the head, the manual outline in green and the one
found in red.

``python -m dev.pictures REAL TARGET --data DATA`` draws the kinds of error that the model card
names; REAL is the folder that ``dev.real_scans`` wrote.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dev.sources import labelled_data, source_of
from msnmo_bids.bids.names import derivative_name
from msnmo_bids.labelled.lesion_masks import read_lesion_mask
from msnmo_bids.labelled.scans import LabelledScan
from msnmo_bids.preprocessing.geometry import box_around

SLICES = 8
#: What is wrong: scan, axial slice (RAS) and what it shows.
ERRORS = (
    ("ds-ms3seg-labelled/sub-02", 8, "marked: bands along the occipital horns"),
    ("ds-clinical-labelled/sub-04", 8, "marked: the same, wide ventricles"),
    ("ds-ms3seg-labelled/sub-01", 12, "marked: splenium"),
    ("ds-clinical-labelled/sub-02", 5, "marked: around the fourth ventricle"),
    ("ds-clinical-labelled/sub-01", 7, "marked: a sinus behind the brain"),
    ("ds-ljubljana-labelled/sub-19", 68, "missed: dim, temporal lobe"),
    ("ds-ms3seg-labelled/sub-02", 6, "missed: temporal poles, pons"),
    ("ds-clinical-labelled/sub-05", 12, "missed: small lesions"),
)


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


def _draw_slice(
    axes: Axes, layers: Sequence[np.ndarray], window: tuple[float, float] | None = None
) -> None:
    """Draw a slice, (X, Y): the FLAIR, and outlines of the manual mask and the one found."""
    image, *masks = layers
    low, high = window or np.percentile(image[image > 0], (1, 99.7))
    axes.imshow(image.T, cmap="gray", vmin=low, vmax=high, origin="lower")
    for mask, colour in zip(masks, ("lime", "red"), strict=True):
        if mask.any():
            axes.contour(mask.T, [0.5], colors=colour, linewidths=0.8)
    axes.axis("off")


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
        _draw_slice(axes, [each[:, :, place] for each in (image, truth, found)], (low, high))
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=70)


def read_scan(one: LabelledScan, real: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read the FLAIR, the manual mask and the one found, (X, Y, Z) in RAS order."""
    assert one.mask is not None, "only labelled scans are asked for"
    raw = nib.Nifti1Image.from_filename(one.scan.path)
    folder = real / source_of(*one.person) / one.scan.bids_dir.name / one.scan.folder
    found = nib.Nifti1Image.from_filename(folder / derivative_name(one.scan.prefix, "lesion_mask"))
    images = (raw, read_lesion_mask(one.mask, raw.affine), found)
    image, truth, marked = (
        np.asarray(nib.funcs.as_closest_canonical(each).dataobj) for each in images
    )
    return image, truth, marked


def main() -> None:
    """Draw the kinds of error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("real", type=Path, help="folder that dev.real_scans wrote")
    parser.add_argument("target", type=Path, help="image file to write")
    parser.add_argument("--data", type=Path, required=True, help="folder of the real data sets")
    options = parser.parse_args()
    scans = {one.name: one for one in labelled_data(options.data).scans}
    columns = 4
    rows = -(-len(ERRORS) // columns)
    figure = Figure(figsize=(3 * columns, 3.6 * rows), facecolor="black", layout="constrained")
    for number, (name, place, what) in enumerate(ERRORS, 1):
        axes = figure.add_subplot(rows, columns, number)
        layers = [each[:, :, place] for each in read_scan(scans[name], options.real)]
        box = box_around(layers[0] > 0.1 * np.percentile(layers[0], 99), 4)
        _draw_slice(axes, [layer[box] for layer in layers])
        axes.set_title(f"{number}. {what}", color="white", fontsize=9)
    figure.savefig(options.target, dpi=90)


if __name__ == "__main__":
    main()
