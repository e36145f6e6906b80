"""The group level: tables, maps, figures and one page, from what participants wrote."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msnmo_bids.bids.dataset import atomic_path, write_bidsignore, write_json, write_tsv
from msnmo_bids.bids.names import io_spec
from msnmo_bids.bids.records import ScanRecord, class_names, in_order
from msnmo_bids.evaluation.crossval import positive_class
from msnmo_bids.group.cohort import Cohort, Columns, read_covariates
from msnmo_bids.group.evaluation import evaluate
from msnmo_bids.group.frequency import frequency_figure, group_by_class, write_frequency_maps
from msnmo_bids.group.page import page
from msnmo_bids.group.review_list import outliers, read_quality, review_list
from msnmo_bids.group.tables import column_dictionary, table_row, write_tables
from msnmo_bids.reports.report_text import ALWAYS, NO_REAL_NMOSD

logger = logging.getLogger(__name__)

PHENOTYPE = "msnmo"


@dataclass(frozen=True)
class GroupSettings:
    """What the user asks of the group level.

    Parameters
    ----------
    columns : Columns
        Where the raw data set says diagnosis, site, scanner and age.
    positive : str
        Positive diagnosis of sensitivity and ROC; empty: NMOSD, or else the last class.
    masks : mapping of str to Path
        Scan -> manual lesion mask.
    no_mask : mapping of str to str
        Scan -> why it has no manual mask; empty when none were asked for.
    """

    columns: Columns = field(default_factory=Columns)
    positive: str = ""
    masks: Mapping[str, Path] = field(default_factory=dict)
    no_mask: Mapping[str, str] = field(default_factory=dict)


def write_group(
    output_dir: Path,
    scans: Sequence[ScanRecord],
    *,
    version: str,
    bids_dir: Path | None = None,
    settings: GroupSettings | None = None,
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write the tables ``group_*.tsv``, the page ``group_FLAIR.html``, maps and ``phenotype/``.

    Every scan is a row, the failed and the pending ones with ``n/a`` and the reason.

    Parameters
    ----------
    output_dir : Path
        Output folder.
    scans : sequence of ScanRecord
        Every scan of the data set, as it stands on disk
        (:func:`~msnmo_bids.bids.records.read_scan`).
    version : str
        Version of the program.
    bids_dir : Path, optional
        Raw data set: what its tables and sidecars say stands beside the model's results.
    settings : GroupSettings, optional
        What the user asks for.
    notes : sequence of str, optional
        What a reader must know of the choice of scans.

    Returns
    -------
    list of Path
        What was written, the page last.

    Raises
    ------
    UsageError
        If a column or the positive class does not exist.
    """
    asked = settings or GroupSettings()
    cohort = _cohort(output_dir, in_order(scans), bids_dir, asked, notes)
    figures = output_dir / io_spec()["reports"]["group_figures"]
    evaluation = evaluate(cohort, output_dir, asked.masks, asked.no_mask, figures)
    for limit in evaluation.limits:
        logger.warning("%s", limit)
    maps = _frequency_maps(output_dir, cohort)
    map_figure = frequency_figure(maps, figures / "group_frequency.png")
    written = write_tables(output_dir, cohort, evaluation)
    written += _write_phenotype(output_dir, cohort)
    write_bidsignore(output_dir)
    target = output_dir / io_spec()["reports"]["group_page"]
    with atomic_path(target) as temporary:
        text = page(cohort, evaluation, maps, map_figure, version=version)
        temporary.write_text(text, encoding="utf-8")
    return [*written, *(path for path, _ in maps.values()), target]


def _cohort(
    output_dir: Path,
    records: list[ScanRecord],
    bids_dir: Path | None,
    asked: GroupSettings,
    notes: Sequence[str],
) -> Cohort:
    """Gather all scans, `records` in order, and what is known of them."""
    classes = class_names(records)
    covariates, unused = read_covariates(
        bids_dir, [r.relative for r in records], asked.columns, classes
    )
    apart, quality = outliers(records), read_quality(output_dir, records)
    rows = [
        table_row(r, classes, covariates[r.relative], apart.get(r.relative, ())) for r in records
    ]
    return Cohort(
        records=records,
        classes=classes,
        positive=positive_class(asked.positive, classes) if classes else asked.positive,
        covariates=covariates,
        review_list=review_list(records, apart, quality),
        quality=quality,
        rows=rows,
        columns=column_dictionary(classes, covariates.values()),
        notes=[*notes, *unused],
    )


def _frequency_maps(output_dir: Path, cohort: Cohort) -> dict[str, tuple[Path, int]]:
    """Write a map for each diagnosis of the raw data set; without any, of the model."""
    if cohort.with_diagnoses:
        meaning = "Classes: the raw data set's diagnosis."
        known = {scan: own.diagnosis for scan, own in cohort.covariates.items() if own.diagnosis}
    else:
        meaning = "Classes: the model's."
        known = {r.relative: str(r.diagnosis["Diagnosis"]) for r in cohort.records if r.diagnosis}
    groups = group_by_class(cohort.records, known)
    return write_frequency_maps(output_dir, groups, meaning=f"{meaning} {NO_REAL_NMOSD}")


def _write_phenotype(output_dir: Path, cohort: Cohort) -> list[Path]:
    """Write one row per scan; the second scan of a participant goes to a second file, and so on.

    BIDS has ``participant_id`` as the index of a phenotype table: twice the same value is an error
    to the validator (TSV_INDEX_VALUE_NOT_UNIQUE), whatever stands in ``session_id``.
    """
    folder = output_dir / "phenotype"
    tables: list[list[Mapping[str, Any]]] = []
    seen: Counter[str] = Counter()
    for record, row in zip(cohort.records, cohort.rows, strict=True):
        if seen[record.subject] == len(tables):
            tables.append([])
        tables[seen[record.subject]].append(row)
        seen[record.subject] += 1

    written = []
    for number, table in enumerate(tables, start=1):
        name = PHENOTYPE if number == 1 else f"{PHENOTYPE}_scan{number}"
        write_tsv(folder / f"{name}.tsv", list(cohort.columns), table)
        write_json(folder / f"{name}.json", {**_measurement(number, len(tables)), **cohort.columns})
        written += [folder / f"{name}.tsv", folder / f"{name}.json"]
    for old in sorted(folder.glob(f"{PHENOTYPE}*.*")):
        if old not in written:
            old.unlink(missing_ok=True)
    return written


def _measurement(number: int, total: int) -> dict[str, Any]:
    which = "Scan of each participant"
    if total > 1:
        which = f"Scan {number} of each participant who has that many, in the order of sessions"
    return {
        "MeasurementToolMetadata": {
            "Description": f"{which}: lesions and pattern score from T2-FLAIR by msnmo. "
            + " ".join(ALWAYS),
        },
        "Derivative": True,
    }
