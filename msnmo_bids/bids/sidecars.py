"""The JSON sidecar of every kind of derivative, of scans and of comparisons of visits.

One rule a kind: what it describes, what it was made from, and which parts of the provenance record
it carries. The record is a mapping with the keys of the diagnosis file (``Threshold``, ``Model``,
``SkullStripping``, …); a key that the record does not have is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msnmo_bids.bids.names import CAM_PREFIX, bids_uri, derivative_name
from msnmo_bids.vocabulary import (
    CHANGE_REASONS,
    CHANGES,
    LESION_BRANCH,
    LOCATION_NAMES,
    REGION_RULES,
)

RAW_DATASET = "raw"
PREPROCESSING_KEYS = ("SkullStripping", "BiasCorrection")
NETWORK_KEYS = ("Model", "Device", "Precision", "RandomSeed")
LESION_KEYS = ("Threshold", "MinimumLesionVolume")
ALL_KEYS = (*LESION_KEYS, *NETWORK_KEYS, *PREPROCESSING_KEYS)


def described(text: str, unit: str = "", **more: Any) -> dict[str, Any]:
    """Describe a column as a BIDS sidecar does; `more` is Levels or Format."""
    return {"Description": text, **({"Units": unit} if unit else {}), **more}


#: Columns of every list of labels; described once, at the root, because sidecars inherit.
LESION_COLUMNS: dict[str, dict[str, Any]] = {
    "index": described(
        "Value of the voxels: number of the lesion, by decreasing volume, or of a class of change",
        Format="integer",
    ),
    "name": described("Name of the lesion, or of what became of lesions"),
    "abbreviation": described("The same, short"),
    "mapping": described(
        "Index of the tissue in the list of common labels of BIDS (7: lesion)", Format="integer"
    ),
}
MORPHOMETRY_COLUMNS: dict[str, dict[str, Any]] = {
    "index": described("Number of the lesion in the label image, by decreasing volume"),
    "volume_mm3": described("Volume of the lesion", "mm^3"),
    "x_mm": described("Centroid, towards the right of the person", "mm"),
    "y_mm": described("Centroid, towards the front of the person", "mm"),
    "z_mm": described("Centroid, towards the head of the person", "mm"),
    "region": described("Candidate region of the lesion, found automatically", Levels=REGION_RULES),
    "diameter_mm": described("Diameter of the sphere of the same volume", "mm"),
    "mean_probability": described("Mean lesion probability over the lesion, 0 to 1"),
    "sites": described(
        "Candidate locations at which the lesion lies, separated by commas; n/a at "
        "none. The last four are typical of NMOSD",
        Levels=LOCATION_NAMES,
    ),
    "lateral_ventricle_mm": described(
        "Least distance to a lateral ventricle; 100: farther, or not in the image", "mm"
    ),
    "lower_ventricle_mm": described(
        "Least distance to the third or fourth ventricle or the aqueduct; 100: "
        "farther, or not in the image",
        "mm",
    ),
    "cortex_mm": described("Least depth below the cortex", "mm"),
    "long_axis_mm": described("Longest axis of the ellipsoid with the same second moments", "mm"),
    "contribution": described(
        "What the lesion adds to the margin (the logit of the disease with the "
        "highest score less that of the next, see Margin in the diagnosis file); n/a where the "
        "weights do not classify lesion by lesion"
    ),
    "margin_without": described(
        "The margin of the scan without this lesion, computed again: the other "
        "lesions count more then"
    ),
    "small": described(
        "Whether the lesion is smaller than 14 mm^3 (3 mm in diameter)",
        Levels={"0": "no", "1": "yes"},
    ),
}

DESCRIPTIONS = {
    "preproc": "T2-FLAIR after skull stripping and bias field correction, on its native grid",
    "brain_mask": "Brain mask",
    "lesion_mask": "White matter lesions: probability above the threshold, small ones removed",
    "lesion_probability": "Lesion probability of each voxel, 0 to 1",
    "lesion_labels": "Connected lesions (26 neighbours), numbered by decreasing volume",
    "morphometry": "One row per lesion: volume, centroid and candidate region",
    "cam": "Class activation map for {class_name}, from three scales: evidence for the class",
}
_OF_LESIONS = (
    "Class activation map for {class_name}: the voxels of a lesion hold what it adds to the logit "
    "of the class; one voxel of each lesion and the bias add up to it"
)


@dataclass(frozen=True)
class _Rule:
    """What a sidecar says of itself, what else its file was made from, and keys of the record."""

    fields: Mapping[str, Any]
    sources: tuple[str, ...]
    keys: tuple[str, ...]


_ORIG = {"SpatialReference": "orig"}
_RULES = {
    "preproc": _Rule({"SkullStripped": True}, ("brain_mask",), PREPROCESSING_KEYS),
    "brain_mask": _Rule({"Type": "Brain", **_ORIG}, (), PREPROCESSING_KEYS[:1]),
    "lesion_mask": _Rule({"Type": "Lesion", **_ORIG}, ("lesion_probability",), ALL_KEYS),
    "lesion_probability": _Rule(_ORIG, ("preproc",), ALL_KEYS),
    "lesion_labels": _Rule(_ORIG, ("lesion_mask",), ALL_KEYS),
    "morphometry": _Rule({}, ("lesion_labels", "lesion_probability"), ALL_KEYS),
    "cam": _Rule(_ORIG, ("preproc",), (*NETWORK_KEYS, *PREPROCESSING_KEYS)),
}


def sidecar_for(
    kind: str, *, source: str, folder: str, prefix: str, record: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of the sidecar of one derivative, JSON-ready.

    Parameters
    ----------
    kind : str
        A key of :func:`msnmo_bids.bids.names.derivative_paths`, except those that are JSON files
        themselves (ValueError). ``lesion_table`` and ``lesion_labels`` share one file.
    source, folder, prefix : str
        As of :class:`~msnmo_bids.bids.scans.Scan`: its path, its folder, its name.
    record : mapping
        Provenance, with the keys of the diagnosis file.
    """
    general = {"lesion_table": "lesion_labels"}.get(kind, kind)
    if kind.startswith(CAM_PREFIX):
        general = "cam"
    if general not in _RULES:
        raise ValueError(f"derivatives of the kind '{kind}' have no sidecar")
    rule = _RULES[general]
    description = DESCRIPTIONS[general]
    sources = rule.sources
    if general == "cam" and record.get("Classifier") == LESION_BRANCH:
        description, sources = _OF_LESIONS, ("lesion_labels",)
    made_from = [f"{folder}/{derivative_name(prefix, other)}" for other in sources]
    return {
        "Description": description.format(class_name=kind.removeprefix(CAM_PREFIX)),
        **rule.fields,
        "Sources": [bids_uri(source, RAW_DATASET), *map(bids_uri, made_from)],
        **(MORPHOMETRY_COLUMNS if kind == "morphometry" else {}),
        **{key: record[key] for key in rule.keys if key in record},
    }


CHANGE_COLUMNS: dict[str, dict[str, Any]] = {
    "index": described("Number of the lesion at both visits, by decreasing volume"),
    "change": described("What became of the lesion", Levels=CHANGES),
    "reason": described("Why it is uncertain", Levels=CHANGE_REASONS),
    "volume_earlier_mm3": described("Volume at the earlier visit, in the half-way space", "mm^3"),
    "volume_later_mm3": described("Volume at the later visit, in the half-way space", "mm^3"),
    "area_ratio": described(
        "Later to earlier area of the great circle of the sphere of equal volume"
    ),
    "contrast_ratio": described(
        "Contrast of what appeared or vanished to the tissue around it: at the "
        "visit without it to that with it (0: it was not there, 1: it was)"
    ),
    "x_mm": described("Centroid in the half-way space, to the right", "mm"),
    "y_mm": described("Centroid in the half-way space, to the front", "mm"),
    "z_mm": described("Centroid in the half-way space, upwards", "mm"),
    "region": MORPHOMETRY_COLUMNS["region"],
    "lesions_earlier": described("Its numbers in the earlier scan's label image"),
    "lesions_later": described("Its numbers in the later scan's label image"),
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

    `kind` is ``flair``, ``mask``, ``probability``, ``classes`` (with ``class_table``) or ``table``;
    `sources` are BIDS URIs, `classes` is the path of the label image of the change classes, which
    stands for the half-way space, and `record` what all of them carry.
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
