"""From the derivatives of two visits to what changed between them, lesion by lesion and in sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from msnmo_bids.bids.text_files import read_tsv
from msnmo_bids.lesions.registration import register_affine
from msnmo_bids.lesions.threshold import rounded
from msnmo_bids.visits.halfway import HalfwaySpace, border_width, halfway_space, resample
from msnmo_bids.visits.lesion_changes import Visit, classify, match_lesions
from msnmo_bids.vocabulary import CHANGES

DAYS_A_YEAR = 365.25
#: Over a shorter time the error of two segmentations, divided by it, is not a rate (days).
SHORTEST_INTERVAL = 60.0


#: Derivatives of a scan by kind, as :func:`msnmo_bids.bids.names.derivative_paths` has them.
VisitFiles = Mapping[str, str]


@dataclass(frozen=True)
class ResampledVisit(Visit):
    """A visit with lesion probabilities and labels, in the half-way space, (X, Y, Z) each."""

    probability: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Changes:
    """What was found between two visits."""

    space: HalfwaySpace  #: The grid of all arrays.
    motion: np.ndarray  #: (4, 4): scanner mm of the earlier visit to those of the later one.
    width: np.ndarray  #: (3,): uncertainty of a lesion's border along each axis (mm).
    #: The two visits.
    earlier: ResampledVisit
    later: ResampledVisit
    #: (X, Y, Z): of the lesion, and of its class (`CHANGES`, from 1); 0 outside of all lesions.
    numbers: np.ndarray
    classes: np.ndarray
    table: list[dict[str, Any]]  #: One mapping per lesion.
    #: Whether a side of the two scans' voxels differs by more than a fifth.
    sizes_differ: bool = False


def find_motion(earlier: VisitFiles, later: VisitFiles) -> np.ndarray:
    """Register two visits rigidly, without random numbers.

    Return the motion, (4, 4), from scanner mm of the earlier visit to those of the later one.

    Raises
    ------
    ValueError
        If an image is empty.
    """
    images = [
        nib.as_closest_canonical(nib.Nifti1Image.from_filename(visit["preproc"]))
        for visit in (earlier, later)
    ]
    sizes = [nib.affines.voxel_sizes(image.affine) for image in images]
    first, second = (np.asarray(image.dataobj, dtype=np.float32) for image in images)
    matrix = register_affine(first, sizes[0], second, sizes[1], rigid=True)
    motion = images[1].affine @ matrix @ np.linalg.inv(images[0].affine)
    left, _, right = np.linalg.svd(motion[:3, :3])  # headers are rounded
    motion[:3, :3] = left @ right
    return motion


def compare(earlier: VisitFiles, later: VisitFiles, motion: np.ndarray) -> Changes:
    """Bring two visits to the half-way space, match their lesions and say what changed.

    `motion` is that of :func:`find_motion`.
    """
    grids = [nib.Nifti1Image.from_filename(visit["brain_mask"]) for visit in (earlier, later)]
    brains = [(np.asanyarray(grid.dataobj) > 0, grid.affine) for grid in grids]
    space = halfway_space(brains[0], brains[1], motion)
    first = _resampled(earlier, space, space.to_earlier)
    second = _resampled(later, space, space.to_later)
    width = border_width([affine for _, affine in brains], space)
    numbers = match_lesions(first.lesions, second.lesions, width)
    rows = classify(numbers, first, second, width)
    tables = [read_tsv(Path(visit["morphometry"])).rows for visit in (earlier, later)]
    regions = [{int(row["index"]): row["region"] for row in lesions} for lesions in tables]
    places = _centroids(numbers, len(rows), space.affine)
    values = np.zeros(len(rows) + 1, dtype=np.uint8)
    boxes = ndimage.find_objects(numbers)
    for row, place, box in zip(rows, places, boxes, strict=True):
        values[row["index"]] = list(CHANGES).index(row["change"]) + 1
        row |= dict(zip(("x_mm", "y_mm", "z_mm"), place, strict=True))
        labels = [visit.labels[box][numbers[box] == row["index"]] for visit in (first, second)]
        row |= _native(labels, regions)
    table = [
        {key: round(it, 3) + 0.0 if isinstance(it, float) else it for key, it in row.items()}
        for row in rows
    ]
    one, other = (np.sort(nib.affines.voxel_sizes(affine)) for _, affine in brains)
    differ = bool((np.abs(one - other) > 0.2 * np.minimum(one, other)).any())
    return Changes(space, motion, width, first, second, numbers, values[numbers], table, differ)


def halfway_images(changes: Changes) -> dict[str, np.ndarray]:
    """Return what is written of a comparison, by :func:`~msnmo_bids.bids.names.change_paths`."""
    images = {"classes": changes.classes}
    for which, visit in (("earlier", changes.earlier), ("later", changes.later)):
        images[f"{which}_flair"] = visit.flair
        images[f"{which}_mask"] = visit.lesions.astype(np.uint8)
        images[f"{which}_probability"] = rounded(visit.probability)
    return images


def describe(changes: Changes, interval_days: float | None) -> dict[str, Any]:
    """Return what the record says of a comparison, ready for JSON: sums, rates and motion.

    `interval_days` is the time between the visits, None where it is not known.
    """
    turn = Rotation.from_matrix(changes.motion[:3, :3]).magnitude()
    centre = changes.space.affine @ [*(np.array(changes.space.shape) / 2), 1]
    shift = np.linalg.norm((changes.space.to_later - changes.space.to_earlier) @ centre)
    registration = {
        "Method": "rigid, robust least squares (msnmo)",
        "EarlierToLater": np.round(changes.motion, 6).tolist(),
        "HalfwayToEarlier": np.round(changes.space.to_earlier, 6).tolist(),
        "HalfwayToLater": np.round(changes.space.to_later, 6).tolist(),
        "RotationDegrees": round(float(np.degrees(turn)), 3),
        "ShiftOfCentreMillimetres": round(float(shift), 3),
    }
    return {
        **summary(changes.table, interval_days),
        "BorderWidth": [round(float(width), 3) for width in changes.width],
        "Flags": ["voxel_sizes_differ"] if changes.sizes_differ else [],
        "Registration": registration,
    }


def _resampled(visit: VisitFiles, space: HalfwaySpace, to_visit: np.ndarray) -> ResampledVisit:
    def brought(path: str, order: int = 1) -> np.ndarray:
        image = nib.Nifti1Image.from_filename(path)
        return resample(np.asanyarray(image.dataobj), image.affine, space, to_visit, order=order)

    return ResampledVisit(
        flair=brought(visit["preproc"]),
        brain=brought(visit["brain_mask"]) > 0.5,
        lesions=brought(visit["lesion_mask"]) > 0.5,
        probability=brought(visit["lesion_probability"]),
        labels=brought(visit["lesion_labels"], order=0).astype(np.int32),
    )


def _centroids(numbers: np.ndarray, count: int, affine: np.ndarray) -> list[list[float]]:
    if not count:
        return []
    centres = ndimage.center_of_mass(numbers > 0, numbers, np.arange(1, count + 1))
    return nib.affines.apply_affine(affine, np.asarray(centres)).tolist()


def _native(own: Sequence[np.ndarray], regions: Sequence[Mapping[int, str]]) -> dict[str, Any]:
    """Return a lesion's numbers in both label images, of its voxels `own`, and its last region."""
    found: dict[str, Any] = {"region": None}
    for which, voxels, names in zip(("earlier", "later"), own, regions, strict=True):
        labels, counts = np.unique(voxels, return_counts=True)
        kept = labels > 0
        labels, counts = labels[kept], counts[kept]
        found[f"lesions_{which}"] = ", ".join(map(str, labels))
        if labels.size:
            found["region"] = names.get(int(labels[np.argmax(counts)])) or found["region"]
    return found


def summary(table: Sequence[dict[str, Any]], interval_days: float | None) -> dict[str, Any]:
    """Sum up the table of :func:`compare`; `interval_days` is None where it is not known.

    Returns
    -------
    dict
        ``Counts`` of each class; ``VolumeEarlier``, ``VolumeLater`` and ``VolumeChange`` of all
        lesions (ml, half-way space), ``NewVolume`` and ``VanishedVolume`` (ml) of the lesions of
        these classes; ``RatesPerYear``: new and enlarging lesions, ``VolumeChange`` (ml) and
        ``VolumeChangePercent`` of the earlier volume; None without dates or over a short time.
    """
    counts = {change: sum(row["change"] == change for row in table) for change in CHANGES}
    before, after = (
        sum(row[f"volume_{which}_mm3"] for row in table) / 1000 for which in ("earlier", "later")
    )
    found: dict[str, Any] = {
        "Counts": counts,
        "VolumeEarlier": round(before, 4),
        "VolumeLater": round(after, 4),
        "VolumeChange": round(after - before, 4),
        "NewVolume": _volume(table, "new", "later"),
        "VanishedVolume": _volume(table, "vanished", "earlier"),
    }
    return found | {"RatesPerYear": _rates(found, interval_days)}


def _volume(table: Sequence[dict[str, Any]], change: str, which: str) -> float:
    return round(sum(r[f"volume_{which}_mm3"] for r in table if r["change"] == change) / 1000, 4)


def _rates(found: dict[str, Any], interval_days: float | None) -> dict[str, float | None] | None:
    if interval_days is None or interval_days < SHORTEST_INTERVAL:
        return None
    years = interval_days / DAYS_A_YEAR
    change, before = found["VolumeChange"], found["VolumeEarlier"]
    return {
        "New": round(found["Counts"]["new"] / years, 3),
        "Enlarging": round(found["Counts"]["enlarging"] / years, 3),
        "VolumeChange": round(change / years, 4),
        "VolumeChangePercent": round(100 * change / before / years, 2) if before > 0 else None,
    }
