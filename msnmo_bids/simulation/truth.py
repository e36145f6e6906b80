"""What is known of a simulated scan: lesions with kind, region and change, tissues, brain."""

from __future__ import annotations

from typing import Any

import numpy as np

from msnmo_bids.lesions.regions import (
    CORTEX,
    DEEP,
    FOURTH_VENTRICLE,
    VENTRICLE,
    assign_regions,
)
from msnmo_bids.lesions.regions import INFRATENTORIAL as BELOW_TENTORIUM
from msnmo_bids.simulation.anatomy import BRAIN, INFRATENTORIAL, Tissue
from msnmo_bids.simulation.sample import SimulatedScan

LESION_COLUMNS = {
    "index": {"Description": "Value in the label image; a lesion keeps it at all visits"},
    "name": {"Description": "Name of the lesion"},
    "kind": {"Description": "What was simulated"},
    "region": {"Description": "Region, by the rule of the app on the true tissues"},
    "x_mm": {"Description": "Centre of mass, to the right", "Units": "mm"},
    "y_mm": {"Description": "Centre of mass, to the front", "Units": "mm"},
    "z_mm": {"Description": "Centre of mass, upwards", "Units": "mm"},
    "volume_mm3": {"Description": "Volume on the grid of the scan", "Units": "mm^3"},
    "change": {
        "Description": "Since the visit before; n/a at the first visit. A vanished lesion has a "
        "volume of 0",
        "Levels": {
            "new": "appeared",
            "stable": "unchanged",
            "enlarging": "grown at its border",
            "shrinking": "shrunk at its border",
            "vanished": "gone since this or an earlier visit",
        },
    },
}


def lesion_table(scan: SimulatedScan, affine: np.ndarray | None = None) -> list[dict[str, Any]]:
    """List the lesions of a scan.

    Parameters
    ----------
    scan : SimulatedScan
        The scan.
    affine : ndarray, (4, 4), optional
        Index (RAS order) to scanner mm, if it is not the scan's own: a tilted scan.

    Returns
    -------
    list of dict
        Keys as `LESION_COLUMNS`. A lesion that lies under others, or between thick slices, and
        therefore has no voxel is left out.
    """
    affine = scan.affine if affine is None else affine
    labels = scan.lesion_labels
    voxel = float(np.prod(scan.zooms))
    regions = assign_regions(labels, region_codes(scan.tissue), scan.zooms.tolist())
    index = np.argwhere(labels)
    numbers = labels[tuple(index.T)]
    rows = []
    for record in sorted(scan.lesions.records, key=lambda record: record.label):
        row = {
            "index": record.label,
            "name": f"lesion {record.label}",
            "kind": record.kind,
            "change": record.change,
        }
        own = index[numbers == record.label]
        if own.size:
            x, y, z = (float(v) for v in affine[:3, :3] @ own.mean(axis=0) + affine[:3, 3])
            row |= {
                "region": regions[record.label],
                "x_mm": round(x, 2),
                "y_mm": round(y, 2),
                "z_mm": round(z, 2),
                "volume_mm3": round(len(own) * voxel, 2),
            }
            rows.append(row)
        elif record.change == "vanished":
            rows.append(row | {"volume_mm3": 0.0})
    return rows


def region_codes(tissue: np.ndarray) -> np.ndarray:
    """Turn tissues into the codes of the app's region map.

    Parameters
    ----------
    tissue : ndarray, (X, Y, Z)
        Values of `Tissue`.

    Returns
    -------
    ndarray, (X, Y, Z), int8
        As :func:`msnmo_bids.lesions.regions.locate_regions` gives them.
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
