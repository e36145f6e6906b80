"""The tables of the group level, each with its JSON dictionary: ``group_*.tsv``, ``phenotype/``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msnmo_bids.bids.dataset import write_json, write_tsv
from msnmo_bids.bids.names import io_spec
from msnmo_bids.bids.records import ScanRecord, Status
from msnmo_bids.bids.sidecars import described
from msnmo_bids.decision import INDETERMINATE
from msnmo_bids.evaluation.measures import cells
from msnmo_bids.evaluation.metrics import CLASS_METRICS, MASK_METRICS, VOLUMES, short_name
from msnmo_bids.group.cohort import Cohort, Covariates
from msnmo_bids.group.evaluation import ALL_SITES, NO_RESULT, Accuracy, Agreement, Evaluation
from msnmo_bids.group.review_list import KINDS
from msnmo_bids.reports.report_text import ALWAYS
from msnmo_bids.vocabulary import NO_REAL_NMOSD, REGION_NAMES

Dictionary = dict[str, Any]
#: Columns with their descriptions, and rows by column.
Table = tuple[Dictionary, Sequence[Mapping[str, Any]]]

_SCAN: Dictionary = {
    "participant_id": described("Label of the participant"),
    "session_id": described("Label of the session; n/a without sessions"),
    "scan": described("The raw FLAIR, relative to the raw data set"),
}
_STATUS: Dictionary = {
    "status": described(
        "What became of the scan",
        Levels={
            Status.COMPLETE: "Processed",
            Status.FAILED: "Processing failed; see reason",
            Status.PENDING: "Not processed",
        },
    ),
    "reason": described("Why there is no result, or no diagnosis; n/a otherwise"),
}
_DIAGNOSIS = described("Diagnosis in the tables of the raw data set")
#: What the raw data set says: column of the table, attribute of `Covariates`, description.
_OF_THE_RAW_DATA: dict[str, tuple[str, dict[str, Any]]] = {
    "participants_diagnosis": ("diagnosis", _DIAGNOSIS),
    "site": ("site", described("Site in the tables of the raw data set")),
    "scanner": (
        "scanner",
        described("Scanner: manufacturer, model and field strength of the raw sidecar"),
    ),
    "age": ("age", described("Age in the tables of the raw data set", "year")),
}
_LOAD: Dictionary = {
    "lesion_count": described("Connected lesions (26 neighbours)"),
    "lesion_count_small": described("Those of them smaller than 14 mm^3 (3 mm across)"),
    "lesion_volume_ml": described("Volume of all lesions", "mL"),
    "brain_volume_ml": described("Volume of the brain mask", "mL"),
}
_FURTHER: Dictionary = {
    # Without a unit: the validator takes a column with one for numbers.
    "voxel_size_mm": described("Voxel size of the raw image along its axes, in mm"),
    "flags": described("What to know of this scan, separated by commas"),
    "outlier": described("Why the scan stands apart from the cohort; n/a otherwise"),
    "threshold": described("Lesion probability above which a voxel is lesion"),
    "weights": described("Name and version of the network's weights"),
    "weights_sha256": described("SHA-256 of the weights"),
    "software_version": described("Version of msnmo"),
}
_UNITS = {"hd95": "mm", "assd": "mm", "true_volume_ml": "mL", "predicted_volume_ml": "mL"}
_VOLUMES = {
    "true_volume_ml": "Volume of the manual mask",
    "predicted_volume_ml": "Volume of the model's mask",
}


def column_dictionary(classes: Sequence[str], covariates: Iterable[Covariates]) -> Dictionary:
    """Return the name and the description of every column of the table of all scans, in order.

    What the raw data set says of no scan has no column. The form is that of a BIDS sidecar.
    """
    named = {name: f"Pattern of {name}" for name in classes}
    pattern = {
        "Description": "Pattern that the lesions resemble most, given that the cause is one of "
        f"the classes. {NO_REAL_NMOSD}",
        "Levels": {**named, INDETERMINATE: "No diagnosis named; see reason"},
    }
    known = list(covariates)
    columns = {**_SCAN, **_STATUS, "diagnosis": pattern} | {
        column: about
        for column, (name, about) in _OF_THE_RAW_DATA.items()
        if any(getattr(own, name) is not None for own in known)
    }
    for name in classes:
        columns[f"probability_{name}"] = described(
            f"Score of the class {name}; the scores of a scan add up to 1. Not to be read where "
            "lesion_count is 0"
        )
    columns |= _LOAD
    for region, title in REGION_NAMES.items():
        columns[f"{region}_count"] = described(f"Lesions in the candidate region: {title}")
        columns[f"{region}_volume_ml"] = described(
            f"Volume of the lesions in the candidate region: {title}", "mL"
        )
    return columns | _FURTHER


def table_row(
    record: ScanRecord, classes: Sequence[str], covariates: Covariates, outlier: Sequence[str]
) -> dict[str, Any]:
    """Return the row of one scan in the table of all scans, by column.

    None and missing columns become ``n/a``. `classes` are those of the whole table, `outlier` says
    why the scan stands apart.
    """
    row: dict[str, Any] = {
        **_which(record),
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


def _which(record: ScanRecord) -> dict[str, Any]:
    """Return the cells of `_SCAN`."""
    return {
        "participant_id": f"sub-{record.subject}",
        "session_id": f"ses-{record.session}" if record.session else None,
        "scan": record.relative,
    }


def write_tables(output_dir: Path, cohort: Cohort, evaluation: Evaluation) -> list[Path]:
    """Write all tables with their dictionaries; return their paths.

    Those of an earlier run that are not written now are removed.
    """
    written: list[Path] = []
    for name, (columns, rows), about in _tables(cohort, evaluation):
        path = output_dir / name
        write_tsv(path, list(columns), rows)
        write_json(path.with_suffix(".json"), {**about, **columns})
        written += [path, path.with_suffix(".json")]
    for old in (*output_dir.glob("group_*.tsv"), *output_dir.glob("phenotype/msnmo*.tsv")):
        if old not in written:
            old.unlink()
            old.with_suffix(".json").unlink(missing_ok=True)
    return written


def _tables(cohort: Cohort, evaluation: Evaluation) -> Iterator[tuple[str, Table, Dictionary]]:
    """Give the name of each table, the table, and what its dictionary says besides."""
    yield io_spec()["reports"]["group_table"], (cohort.columns, cohort.rows), {}
    yield "group_attention.tsv", _review_list(cohort), {}
    if evaluation.accuracy is not None:
        yield "group_confusion.tsv", _confusion(cohort.classes, evaluation.accuracy), {}
        yield "group_accuracy.tsv", _accuracy(evaluation.accuracy), {}
    if evaluation.agreement is not None:
        yield "group_segmentation.tsv", _segmentation(cohort, evaluation.agreement), {}
    # BIDS allows one row per participant and phenotype table: second scans have a second table.
    tables: dict[int, list[Mapping[str, Any]]] = {}
    seen: Counter[str] = Counter()
    for row in cohort.rows:
        seen[row["participant_id"]] += 1
        tables.setdefault(seen[row["participant_id"]], []).append(row)
    for number, rows in tables.items():
        name = "phenotype/msnmo" if number == 1 else f"phenotype/msnmo_scan{number}"
        yield f"{name}.tsv", (cohort.columns, rows), _measurement(number, len(tables))


def _measurement(number: int, total: int) -> dict[str, Any]:
    which = "Scan of each participant"
    if total > 1:
        which = f"Scan {number} of each participant who has that many, in the order of sessions"
    about = f"{which}: lesions and pattern score from T2-FLAIR by msnmo. {' '.join(ALWAYS)}"
    return {"MeasurementToolMetadata": {"Description": about}, "Derivative": True}


def _review_list(cohort: Cohort) -> Table:
    columns = {
        **_SCAN,
        "kind": described("Why to look at it", Levels=dict(KINDS)),
        "reason": described("In words"),
    }
    rows = [
        {**_which(item.record), "kind": item.kind, "reason": item.reason}
        for item in cohort.review_list
    ]
    return columns, rows


def _confusion(classes: Sequence[str], accuracy: Accuracy) -> Table:
    columns: Dictionary = {
        "site": described(f"Site; {ALL_SITES}: all together"),
        "diagnosis": _DIAGNOSIS,
        **{
            name: described(f"Scans that the model calls {name}. {NO_REAL_NMOSD}")
            for name in classes
        },
        INDETERMINATE: described("Scans for which it names no diagnosis"),
        "no_result": described("Scans that failed or were not processed"),
    }
    rows = [
        {"site": site, "diagnosis": name, **numbers, "no_result": numbers[NO_RESULT]}
        for site, name, numbers in accuracy.confusion
    ]
    return columns, rows


def _accuracy(accuracy: Accuracy) -> Table:
    columns: Dictionary = {
        "scans_of": described(
            f"Which scans: {ALL_SITES} with a score, those with a named diagnosis, or those of a "
            f"site. {NO_REAL_NMOSD}"
        )
    }
    for metric in CLASS_METRICS:
        columns |= _measure_columns(metric)
    rows = []
    for name, measures in accuracy.measures.items():
        row: dict[str, Any] = {"scans_of": name}
        for metric in CLASS_METRICS:
            row |= {k: _digits(value) for k, value in cells(metric, measures[metric]).items()}
        rows.append(row)
    return columns, rows


def _measure_columns(metric: str) -> Dictionary:
    name = short_name(metric)
    return {
        metric: described(f"{name}, 0 to 1"),
        f"{metric}_low": described(f"{name}: lower end of the 95 % interval"),
        f"{metric}_high": described(f"{name}: upper end of the 95 % interval"),
        f"{metric}_scans": described(f"{name}: scans"),
        f"{metric}_subjects": described(f"{name}: people"),
    }


def _digits(value: float | None) -> Any:
    """Write other than whole numbers with four decimals."""
    return f"{value:.4f}" if isinstance(value, float) else value


def _segmentation(cohort: Cohort, agreement: Agreement) -> Table:
    columns: Dictionary = dict(_SCAN)
    for metric in (*MASK_METRICS, *VOLUMES):
        title = _VOLUMES.get(metric) or short_name(metric)
        columns[metric] = described(f"{title}, on the scan's own grid", _UNITS.get(metric, ""))
    columns["reason"] = described("Why the scan was not compared; n/a otherwise")
    rows = []
    by_name = {record.relative: record for record in cohort.records}
    for scan in [*agreement.metrics, *agreement.problems]:
        digits = {name: _digits(v) for name, v in agreement.metrics.get(scan, {}).items()}
        rows.append({**_which(by_name[scan]), **digits, "reason": agreement.problems.get(scan)})
    return columns, rows
