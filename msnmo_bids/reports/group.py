"""The group level: one table, one page and the phenotype files, from what participants wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msnmo_bids.bids.dataset import atomic_path, read_table, write_json, write_tsv
from msnmo_bids.bids.names import io_spec, report_path
from msnmo_bids.reports.columns import column_dictionary, table_row
from msnmo_bids.reports.distribution import Plot, distribution
from msnmo_bids.reports.page import class_colour, render
from msnmo_bids.reports.records import (
    FAILED,
    MISSING,
    OK,
    ScanRecord,
    class_names,
    in_order,
    read_scan,
)
from msnmo_bids.reports.wording import ALWAYS, INDETERMINATE

PHENOTYPE = "msnmo"
VOLUME_FLOOR_ML, COUNT_FLOOR = 0.01, 0.5


def write_group(
    output_dir: Path,
    scans: Sequence[Mapping[str, Any]],
    run_status: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    version: str,
    bids_dir: Path | None = None,
) -> list[Path]:
    """Write ``group_FLAIR.tsv``, ``group_FLAIR.html`` and ``phenotype/msnmo*``.

    Every scan is a row, the failed and the missing ones with ``n/a`` and the reason.

    Parameters
    ----------
    output_dir : Path
        Output folder.
    scans : sequence of mapping
        An entry as in ``run.json`` for every scan of the data set.
    run_status : mapping, optional
        Scan -> the latest entry of a ``run.json``, for entries in ``scans`` without a status.
    version : str
        Version of the program.
    bids_dir : Path, optional
        Raw data set; a column ``diagnosis`` of its ``participants.tsv`` is put beside the model's.

    Returns
    -------
    list of Path
        What was written, the page last.
    """
    status = run_status or {}
    entries = [{**status.get(entry["Scan"], {}), **entry} for entry in scans]
    records = in_order(read_scan(output_dir, entry) for entry in entries)
    classes = class_names(records)
    reference = _reference(bids_dir)
    columns = column_dictionary(classes, with_reference=bool(reference))
    rows = [table_row(record, classes, reference.get(record.subject)) for record in records]

    spec = io_spec()["reports"]
    table, page = output_dir / spec["group_table"], output_dir / spec["group_page"]
    write_tsv(table, list(columns), rows)
    written = [table, *_write_phenotype(output_dir, records, rows, columns)]
    with atomic_path(page) as temporary:
        text = _page(records, rows, classes, reference, columns, version, table.name)
        temporary.write_text(text, encoding="utf-8")
    return [*written, page]


def _reference(bids_dir: Path | None) -> dict[str, str]:
    """Return the diagnosis of each participant (without ``sub-``) in the raw data set."""
    rows = [] if bids_dir is None else read_table(bids_dir / "participants.tsv")
    return {
        str(row["participant_id"]).removeprefix("sub-"): row["diagnosis"]
        for row in rows
        if row.get("participant_id") and row.get("diagnosis") not in (None, "", "n/a")
    }


def _write_phenotype(
    output_dir: Path,
    records: Sequence[ScanRecord],
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Mapping[str, Any]],
) -> list[Path]:
    """Write one row a scan; the second scan of a participant goes to a second file, and so on.

    BIDS has ``participant_id`` as the index of a phenotype table: twice the same value is an error
    to the validator (TSV_INDEX_VALUE_NOT_UNIQUE), whatever stands in ``session_id``.
    """
    folder = output_dir / "phenotype"
    tables: list[list[Mapping[str, Any]]] = []
    seen: Counter[str] = Counter()
    for record, row in zip(records, rows, strict=True):
        if seen[record.subject] == len(tables):
            tables.append([])
        tables[seen[record.subject]].append(row)
        seen[record.subject] += 1

    written = []
    for number, table in enumerate(tables, start=1):
        name = PHENOTYPE if number == 1 else f"{PHENOTYPE}_scan{number}"
        write_tsv(folder / f"{name}.tsv", list(columns), table)
        write_json(folder / f"{name}.json", {**_measurement(number, len(tables)), **columns})
        written += [folder / f"{name}.tsv", folder / f"{name}.json"]
    for old in sorted(folder.glob(f"{PHENOTYPE}*.*")):
        if old not in written:
            old.unlink()
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


def _page(
    records: Sequence[ScanRecord],
    rows: Sequence[Mapping[str, Any]],
    classes: list[str],
    reference: Mapping[str, str],
    columns: Mapping[str, Mapping[str, Any]],
    version: str,
    table_name: str,
) -> str:
    found = [record for record in records if record.status == OK]
    groups = [*classes, INDETERMINATE]
    groups += sorted({str(record.diagnosis["Diagnosis"]) for record in found} - set(groups))
    colours = {name: class_colour(classes, name) for name in groups}
    subjects = {record.subject for record in records}
    return render(
        "group.html.j2",
        records=list(zip(records, rows, strict=True)),
        report_path=report_path,
        classes=classes,
        colours=colours,
        reference=reference,
        count={
            status: sum(record.status == status for record in records)
            for status in (OK, FAILED, MISSING)
        },
        participants=len(subjects),
        common=_common_flags(found),
        verdicts=[(g, sum(r.diagnosis["Diagnosis"] == g for r in found)) for g in groups],
        plots=_plots(found, groups, colours),
        crossed=_crossed(found, reference, groups),
        groups=groups,
        columns=columns,
        version=version,
        table_name=table_name,
    )


def _common_flags(found: Sequence[ScanRecord]) -> list[str]:
    """Return the flags that all of several scans have, to be said once."""
    if len(found) < 2:
        return []
    return sorted(set.intersection(*(set(record.diagnosis["Flags"]) for record in found)))


def _plots(
    found: Sequence[ScanRecord], groups: Sequence[str], colours: Mapping[str, str]
) -> list[Plot]:
    def values(key: str) -> dict[str, list[tuple[str, float]]]:
        return {
            group: [
                (record.prefix, float(record.diagnosis[key]))
                for record in found
                if record.diagnosis["Diagnosis"] == group and record.diagnosis[key] is not None
            ]
            for group in groups
        }

    volumes = distribution(
        "Lesion volume (ml)",
        values("LesionVolume"),
        colours,
        floor=VOLUME_FLOOR_ML,
        floor_label="≤ 0.01",
    )
    counts = distribution(
        "Lesions", values("LesionCount"), colours, floor=COUNT_FLOOR, floor_label="0"
    )
    return [plot for plot in (volumes, counts) if plot.lanes]


def _crossed(
    found: Sequence[ScanRecord], reference: Mapping[str, str], groups: Sequence[str]
) -> list[tuple[str, list[int]]]:
    """Count scans by the diagnosis in ``participants.tsv`` (rows) and the model's (columns)."""
    if not reference:
        return []
    pairs = Counter((reference.get(r.subject, "n/a"), str(r.diagnosis["Diagnosis"])) for r in found)
    names = sorted({name for name, _ in pairs})
    return [(name, [pairs[name, group] for group in groups]) for name in names]
