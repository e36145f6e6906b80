"""The columns of the table of all scans: their names, what they mean, and what a scan has there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msnmo_bids.bids.records import ScanRecord, Status
from msnmo_bids.diagnosis import INDETERMINATE
from msnmo_bids.group.covariates import Covariates
from msnmo_bids.reports.report_text import NO_REAL_NMOSD
from msnmo_bids.vocabulary import REGION_NAMES

REFERENCE = "participants_diagnosis"
#: What the raw data set says: column of the table, attribute of `Covariates`, dictionary.
_OF_THE_RAW_DATA: dict[str, tuple[str, dict[str, Any]]] = {
    REFERENCE: ("diagnosis", {"Description": "Diagnosis in the tables of the raw data set"}),
    "site": ("site", {"Description": "Site in the tables of the raw data set"}),
    "scanner": (
        "scanner",
        {"Description": "Scanner: manufacturer, model and field strength of the raw sidecar"},
    ),
    "age": ("age", {"Description": "Age in the tables of the raw data set", "Units": "year"}),
}


def column_dictionary(
    classes: Sequence[str], covariates: Iterable[Covariates]
) -> dict[str, dict[str, Any]]:
    """Return the name and the description of every column, in order.

    Parameters
    ----------
    classes : sequence of str
        Diagnosis classes.
    covariates : iterable of Covariates
        What the raw data set says of the scans; what it says of none has no column.

    Returns
    -------
    dict
        As in a BIDS sidecar of a table.
    """
    columns: dict[str, dict[str, Any]] = {
        "participant_id": {"Description": "Label of the participant"},
        "session_id": {"Description": "Label of the session; n/a without sessions"},
        "scan": {"Description": "The raw FLAIR, relative to the raw data set"},
        "status": {
            "Description": "What became of the scan",
            "Levels": {
                Status.COMPLETE: "Processed",
                Status.FAILED: "Processing failed; see reason",
                Status.PENDING: "Not processed",
            },
        },
        "reason": {"Description": "Why there is no result, or no diagnosis; n/a otherwise"},
        "diagnosis": {
            "Description": "Pattern that the lesions resemble most, given that the cause is one of "
            f"the classes. {NO_REAL_NMOSD}",
            "Levels": {
                **{name: f"Pattern of {name}" for name in classes},
                INDETERMINATE: "No diagnosis named; see reason",
            },
        },
    }
    known = list(covariates)
    for column, (name, about) in _OF_THE_RAW_DATA.items():
        if any(getattr(own, name) is not None for own in known):
            columns[column] = about
    for name in classes:
        columns[f"probability_{name}"] = {
            "Description": f"Score of the class {name}; the scores of a scan add up to 1. Not to "
            "be read where lesion_count is 0"
        }
    columns |= {
        "lesion_count": {"Description": "Connected lesions (26 neighbours)"},
        "lesion_count_small": {"Description": "Those of them smaller than 14 mm^3 (3 mm across)"},
        "lesion_volume_ml": {"Description": "Volume of all lesions", "Units": "mL"},
        "brain_volume_ml": {"Description": "Volume of the brain mask", "Units": "mL"},
    }
    for region, title in REGION_NAMES.items():
        columns[f"{region}_count"] = {"Description": f"Lesions in the candidate region: {title}"}
        columns[f"{region}_volume_ml"] = {
            "Description": f"Volume of the lesions in the candidate region: {title}",
            "Units": "mL",
        }
    return columns | {
        "voxel_size_mm": {
            # Without "Units": the validator takes a column with a unit for numbers.
            "Description": "Voxel size of the raw image along its axes, in mm",
        },
        "flags": {"Description": "What to know of this scan, separated by commas"},
        "outlier": {"Description": "Why the scan stands apart from the cohort; n/a otherwise"},
        "threshold": {"Description": "Lesion probability above which a voxel is lesion"},
        "weights": {"Description": "Name and version of the network's weights"},
        "weights_sha256": {"Description": "SHA-256 of the weights"},
        "software_version": {"Description": "Version of msnmo"},
    }


def table_row(
    record: ScanRecord, classes: Sequence[str], covariates: Covariates, outlier: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the row of one scan.

    Parameters
    ----------
    record : ScanRecord
        The scan.
    classes : sequence of str
        Diagnosis classes of the whole table.
    covariates : Covariates
        What the raw data set says.
    outlier : sequence of str, optional
        Why the scan stands apart.

    Returns
    -------
    dict
        Column -> value; None and missing columns become ``n/a``.
    """
    row: dict[str, Any] = {
        "participant_id": f"sub-{record.subject}",
        "session_id": f"ses-{record.session}" if record.session else None,
        "scan": record.relative,
        "status": record.status,
        "reason": record.reason or None,
        "outlier": "; ".join(outlier),
        **{column: getattr(covariates, name) for column, (name, _) in _OF_THE_RAW_DATA.items()},
    }
    diagnosis = record.diagnosis
    if not diagnosis:
        return row
    probabilities = diagnosis["Probabilities"] or {}
    regions = diagnosis["Regions"] or {}
    model = diagnosis["Model"] or {}
    row |= {f"probability_{name}": probabilities.get(name) for name in classes}
    for region in REGION_NAMES:
        # A region without lesions may lack in the file: that is 0, not unknown.
        here = regions.get(region) or {}
        row[f"{region}_count"] = here.get("Count", 0)
        row[f"{region}_volume_ml"] = here.get("Volume", 0.0)
    return row | {
        "reason": diagnosis["Reason"],
        "diagnosis": diagnosis["Diagnosis"],
        "lesion_count": diagnosis["LesionCount"],
        "lesion_count_small": diagnosis["LesionCountSmall"],
        "lesion_volume_ml": diagnosis["LesionVolume"],
        "brain_volume_ml": diagnosis["BrainVolume"],
        "voxel_size_mm": "x".join(f"{size:g}" for size in diagnosis["VoxelSize"] or []),
        "flags": ",".join(diagnosis["Flags"] or []),
        "threshold": diagnosis.get("Threshold"),
        "weights": " ".join(str(model.get(key, "")) for key in ("Name", "Version")),
        "weights_sha256": model.get("SHA256"),
        "software_version": (diagnosis.get("GeneratedBy") or {}).get("Version"),
    }
