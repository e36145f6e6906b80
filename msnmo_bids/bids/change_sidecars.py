"""What the files about the change between two visits say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msnmo_bids.bids.names import bids_uri
from msnmo_bids.bids.sidecars import MORPHOMETRY_COLUMNS
from msnmo_bids.vocabulary import CHANGE_REASONS, CHANGES

CHANGE_COLUMNS: dict[str, dict[str, Any]] = {
    "index": {"Description": "Number of the lesion at both visits, by decreasing volume"},
    "change": {"Description": "What became of the lesion", "Levels": CHANGES},
    "reason": {"Description": "Why it is uncertain", "Levels": CHANGE_REASONS},
    "volume_earlier_mm3": {
        "Description": "Volume at the earlier visit, in the half-way space",
        "Units": "mm^3",
    },
    "volume_later_mm3": {
        "Description": "Volume at the later visit, in the half-way space",
        "Units": "mm^3",
    },
    "area_ratio": {
        "Description": "Later to earlier area of the great circle of the sphere of equal volume"
    },
    "contrast_ratio": {
        "Description": "Contrast of what appeared or vanished to the tissue around it: at the "
        "visit without it to that with it (0: it was not there, 1: it was)"
    },
    "x_mm": {"Description": "Centroid in the half-way space, to the right", "Units": "mm"},
    "y_mm": {"Description": "Centroid in the half-way space, to the front", "Units": "mm"},
    "z_mm": {"Description": "Centroid in the half-way space, upwards", "Units": "mm"},
    "region": MORPHOMETRY_COLUMNS["region"],
    "lesions_earlier": {"Description": "Its numbers in the earlier scan's label image"},
    "lesions_later": {"Description": "Its numbers in the later scan's label image"},
}
CHANGE_DESCRIPTIONS = {
    "flair": "T2-FLAIR without skull, bias-corrected, in the space half-way between two visits",
    "mask": "Lesions of one visit in the space half-way between two visits",
    "probability": "Lesion probability of one visit in the space half-way between two visits",
    "classes": "What became of each lesion between two visits: one value per class",
    "table": "One row per lesion of either visit: volumes and what became of it",
    "record": "Change of the lesions between two visits, and what it rests on",
}


def change_sidecar(
    kind: str, *, sources: list[str], classes: str, record: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of the sidecar of one file about the change between two visits.

    Parameters
    ----------
    kind : {"flair", "mask", "probability", "classes", "table"}
        What the file holds; ``class_table`` shares the sidecar of ``classes``.
    sources : list of str
        BIDS URIs of what it was made from.
    classes : str
        Path of the label image of the change classes, which stands for the half-way space.
    record : mapping
        Keys of the record that all of them carry.

    Returns
    -------
    dict
        JSON-ready.
    """
    content: dict[str, Any] = {"Description": CHANGE_DESCRIPTIONS[kind], "Sources": sources}
    if kind == "table":
        return {**content, **CHANGE_COLUMNS, **record}
    content["SpatialReference"] = bids_uri(classes)
    if kind == "flair":
        content["SkullStripped"] = True
    elif kind == "mask":
        content["Type"] = "Lesion"
    elif kind == "classes":
        content["Classes"] = CHANGES
    return {**content, **record}
