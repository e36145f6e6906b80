"""What a run writes beside the derivatives of its scans: shared files and reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from msnmo_bids.bids.changes import paths_of, read_changes, why_not_comparable
from msnmo_bids.bids.dataset import read_record, write_citations, write_shared_files
from msnmo_bids.bids.names import io_spec, report_path
from msnmo_bids.bids.records import (
    ScanRecord,
    Status,
    VisitsRecord,
    latest_comparisons,
    latest_records,
    read_runs,
    read_scan,
    with_steps,
)
from msnmo_bids.bids.resume import RAW_IMAGE, diagnosis_path, read_diagnosis, why_other_image
from msnmo_bids.bids.scans import Scan
from msnmo_bids.run.plan import Plan, possible_comparisons, why_left_out
from msnmo_bids.settings import MACHINE_SETTINGS
from msnmo_bids.version import get_version


def write_shared(bids_dir: Path, output_dir: Path, plan: Plan) -> None:
    """Write the files at the top of the output folder."""
    write_shared_files(
        output_dir, bids_dir=bids_dir, version=get_version(), class_names=plan.metadata.class_names
    )


def write_reports(
    output_dir: Path,
    plan: Plan,
    *,
    subjects: Iterable[str],
    now: Sequence[ScanRecord] = (),
    compared: Sequence[dict[str, Any]] = (),
) -> None:
    """Write the participants' reports, from what is on disk and what failed.

    `now` and `compared` are what this run says of its scans and comparisons, which no ``run.json``
    holds yet.
    """
    from msnmo_bids.reports.participant import write_participant_report

    runs = read_runs(output_dir)
    latest = latest_records(runs)
    latest |= {record.relative: with_steps(record, latest) for record in now}
    latest_compared = latest_comparisons([*runs, {"Comparisons": list(compared)}])
    for subject in subjects:
        scans = [scan for scan in plan.selection.available if scan.subject == subject]
        write_participant_report(
            output_dir,
            subject,
            [standing(scan, output_dir, latest) for scan in scans],
            changes=_changes_of_visits(scans, output_dir, latest_compared),
            left_out=why_left_out(scans, output_dir),
            settings=_settings(output_dir, plan, scans),
            version=get_version(),
        )


def write_methods(output_dir: Path) -> None:
    """Write how all that lies in the output folder was made, whichever run made it."""
    write_citations(output_dir, _methods(output_dir))


def _methods(output_dir: Path) -> Iterator[str]:
    """Find what the records of scans and of comparisons say of how they were made."""
    for suffix in (
        io_spec()["derivatives"]["diagnosis"]["suffix"],
        io_spec()["changes"]["both"]["record"]["suffix"],
    ):
        for path in sorted(output_dir.glob(f"sub-*/**/*_{suffix}")):
            methods = (read_record(path) or {}).get("Methods")
            if isinstance(methods, str):
                yield methods


def standing(scan: Scan, output_dir: Path, latest: Mapping[str, ScanRecord]) -> ScanRecord:
    """Return how a scan stands now.

    It is pending where the results are those of another raw image than the one that is there now.
    `latest` is from :func:`msnmo_bids.bids.records.latest_records`.
    """
    known = replace(latest.get(scan.relative, ScanRecord.of(scan)), notes=tuple(scan.notes))
    record = read_scan(output_dir, known)
    if record.status != Status.COMPLETE:
        return record
    reason = why_other_image(scan, record.diagnosis.get(RAW_IMAGE))
    return record if reason is None else replace(
        record, status=Status.PENDING, message=reason,
        remedy="Run the participant level again", diagnosis={},
    )  # fmt: skip


def _changes_of_visits(
    scans: Sequence[Scan], output_dir: Path, latest: Mapping[str, Mapping[str, Any]]
) -> list[VisitsRecord]:
    """Return what a report says of the comparisons of a participant's visits, in order.

    `latest` has the latest entry of each comparison in ``run.json``, by its name.
    """
    found = []
    for comparison in possible_comparisons(scans, output_dir):
        entry = latest.get(comparison.name, {})
        problem = why_not_comparable(comparison, output_dir) or ""
        if not problem and entry.get("Status") == Status.FAILED:
            problem = ": ".join(filter(None, (entry.get("Step"), entry.get("Message"))))
        found.append(
            VisitsRecord(
                earlier=comparison.earlier.session or "",
                later=comparison.later.session or "",
                name=comparison.name,
                record=read_changes(comparison, output_dir) or {},
                table=output_dir / paths_of(comparison)["table"],
                figure=output_dir / paths_of(comparison)["figure"],
                problem=problem,
            )
        )
    return found


def _settings(output_dir: Path, plan: Plan, scans: Sequence[Scan]) -> dict[str, Any]:
    """Return the settings of a report: where nothing ran now, device and precision as recorded.

    So the report of a run that was killed just before it is the one that it would have written.
    """
    settings = asdict(plan.settings)
    undecided = [name for name in MACHINE_SETTINGS if settings[name] == "auto"]
    if undecided:
        records = (read_diagnosis(scan, output_dir) or {} for scan in scans)
        recorded: dict[str, Any] = next(
            (record["Settings"] for record in records if "Settings" in record), {}
        )
        settings |= {name: recorded[name] for name in undecided if name in recorded}
    return settings


def stale_reports(output_dir: Path, scans: Sequence[Scan]) -> list[str]:
    """Return the participants whose report is missing or older than what it reports, in order.

    `scans` are all that the reports are about.
    """
    subjects = dict.fromkeys(scan.subject for scan in scans)
    return [
        subject
        for subject in subjects
        if not _is_current(output_dir, subject, [scan for scan in scans if scan.subject == subject])
    ]


def _is_current(output_dir: Path, subject: str, scans: Sequence[Scan]) -> bool:
    report = output_dir / report_path(subject)
    if not report.is_file():
        return False
    written = report.stat().st_mtime_ns
    records = [
        *(diagnosis_path(scan, output_dir) for scan in scans),
        *(
            output_dir / paths_of(comparison)["record"]
            for comparison in possible_comparisons(scans, output_dir)
        ),
    ]
    return all(path.stat().st_mtime_ns <= written for path in records if path.is_file())
