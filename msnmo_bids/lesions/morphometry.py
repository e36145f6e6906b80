"""Measures of each lesion and their summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from msnmo_bids.lesions.descriptors import DESCRIPTORS
from msnmo_bids.lesions.regions import (
    LOCATIONS,
    MNI_SPACE,
    REGIONS,
    Regions,
    assign_regions,
    lesion_locations,
)
from msnmo_bids.lesions.threshold import Lesions

#: A sphere of 3 mm; smaller lesions are counted apart (mm³).
SMALL_LESION = 14.0
#: Columns of the lesion table, and the descriptors that they show (mm).
SHOWN = {
    "lateral_ventricle_mm": "lateral_least",
    "lower_ventricle_mm": "lower_least",
    "cortex_mm": "cortex_least",
    "long_axis_mm": "long_axis",
}


def measure_lesions(
    lesions: Lesions, regions: Regions, affine: np.ndarray, descriptors: np.ndarray
) -> dict[str, Any]:
    """Measure the lesions of a scan and say where they lie; JSON-ready.

    Lesions and regions are on one grid, whose affine, (4, 4), goes from index to RAS mm;
    descriptors, (n, D), are those of :func:`~msnmo_bids.lesions.descriptors.describe_lesions`.
    ``Table`` is `lesion_table` with those of them that a reader understands (`SHOWN`); ``Summary``
    is `summary`, with AtlasRegistration: where the scan lies in MNI space.
    """
    voxel_volume = float(abs(np.linalg.det(affine[:3, :3])))
    table = lesion_table(
        lesions.labels,
        lesions.probability,
        assign_regions(lesions.labels, regions.codes, nib.affines.voxel_sizes(affine)),
        affine,
        lesion_locations(lesions.labels, regions.to_mni, voxel_volume),
    )
    shown = descriptors[:, [list(DESCRIPTORS).index(source) for source in SHOWN.values()]]
    for row, values in zip(table, shown.tolist(), strict=True):
        row |= {name: round(value, 2) for name, value in zip(SHOWN, values, strict=True)}
    # From RAS mm of the scan to mm in MNI space, whatever the order of the image's axes.
    to_mni = (regions.to_mni @ np.linalg.inv(affine)).tolist()
    matrix = [[round(value, 6) for value in row] for row in to_mni]
    where = {"AtlasRegistration": {"Space": MNI_SPACE, "Matrix": matrix}}
    return {"Table": table, "Summary": {**summary(table), **where}}


def lesion_table(
    labels: np.ndarray,
    probability: np.ndarray,
    regions: Mapping[int, str],
    affine: np.ndarray,
    locations: Mapping[int, Mapping[str, float]],
) -> list[dict[str, Any]]:
    """Measure each lesion of the labels, 1 to n, (X, Y, Z); the affine goes from index to RAS mm.

    By label, regions are names, and locations have the volume there (mm³). A row has index,
    volume_mm3, x_mm, y_mm, z_mm (centroid, RAS), region, diameter_mm (of the sphere of the same
    volume), mean_probability, small (1 under 14 mm³), sites (name -> mm³).
    """
    count = int(labels.max(initial=0))
    if count == 0:
        return []
    numbers, index = np.arange(1, count + 1), np.nonzero(labels)
    inside = labels[index]  # of each lesion voxel, so that no pass goes over the whole image
    voxel_volume = float(abs(np.linalg.det(affine[:3, :3])))
    volumes = np.bincount(inside, minlength=count + 1)[1:] * voxel_volume
    centres = np.stack([ndimage.mean(axis, inside, numbers) for axis in index], axis=1)
    centroids = nib.affines.apply_affine(affine, centres)
    means = ndimage.mean(probability[index], inside, numbers)
    return [
        {
            "index": int(number),
            "volume_mm3": round(float(volume), 3),
            "x_mm": round(float(place[0]), 2),
            "y_mm": round(float(place[1]), 2),
            "z_mm": round(float(place[2]), 2),
            "region": regions[int(number)],
            "diameter_mm": round(float((6 * volume / np.pi) ** (1 / 3)), 2),
            "mean_probability": round(float(mean), 4),
            "small": int(volume < SMALL_LESION),
            "sites": {name: round(part, 3) for name, part in locations[int(number)].items()},
        }
        for number, volume, place, mean in zip(numbers, volumes, centroids, means, strict=True)
    ]


def summary(table: list[dict[str, Any]]) -> dict[str, Any]:
    """Sum a `lesion_table` up, regions and locations without lesions too.

    LesionCount, LesionCountSmall, LesionVolume (ml), Regions: Count and Volume (ml) of each region,
    and Sites: Count of the lesions at each location and Volume (ml) of what of them is there.
    """
    regions: dict[str, Any] = {name: {"Count": 0, "Volume": 0.0} for name in REGIONS}
    locations: dict[str, Any] = {name: {"Count": 0, "Volume": 0.0} for name in LOCATIONS}
    for row in table:
        regions[row["region"]]["Count"] += 1
        regions[row["region"]]["Volume"] += row["volume_mm3"] / 1000
        for location, volume in row["sites"].items():
            locations[location]["Count"] += 1
            locations[location]["Volume"] += volume / 1000
    for measures in (*regions.values(), *locations.values()):
        measures["Volume"] = round(measures["Volume"], 4)
    return {
        "LesionCount": len(table),
        "LesionCountSmall": sum(row["small"] for row in table),
        "LesionVolume": round(sum(row["volume_mm3"] for row in table) / 1000, 4),
        "Regions": regions,
        "Sites": locations,
    }
