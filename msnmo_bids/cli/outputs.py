"""What a run writes beside the derivatives of its scans: shared files and reports."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msnmo_bids.bids.changes import paths_of, read_changes, why_not_comparable
from msnmo_bids.bids.dataset import write_shared_files
from msnmo_bids.bids.names import report_path
from msnmo_bids.bids.resume import diagnosis_path, read_diagnosis
from msnmo_bids.bids.runs import (
    FAILED,
    OK,
    SKIPPED,
    latest_comparisons,
    latest_statuses,
    read_runs,
    scan_entry,
)
from msnmo_bids.bids.scans import Scan
from msnmo_bids.cli.comparisons import possible_comparisons
from msnmo_bids.cli.plan import Plan
from msnmo_bids.settings import MACHINE_SETTINGS
from msnmo_bids.version import get_version

if TYPE_CHECKING:
    from msnmo_bids.reports.visits import VisitsRecord


def write_shared(options: argparse.Namespace, plan: Plan) -> None:
    """Write the files at the top of the output folder.

    Parameters
    ----------
    options : argparse.Namespace
        From the command line.
    plan : Plan
        Knows the classes.
    """
    write_shared_files(
        options.output_dir,
        bids_dir=options.bids_dir,
        version=get_version(),
        class_names=plan.metadata.class_names,
    )


def write_reports(
    output_dir: Path,
    plan: Plan,
    *,
    subjects: Iterable[str],
    entries: Sequence[dict] = (),
    comparison_entries: Sequence[dict] = (),
) -> None:
    """Write the participants' reports from what is on disk and what failed.

    Parameters
    ----------
    output_dir : Path
        Output folder.
    plan : Plan
        Scans of the data set and settings.
    subjects : iterable of str
        Labels without ``sub-``.
    entries, comparison_entries : sequence of dict
        Entries of this run, which no ``run.json`` holds yet, of scans and of comparisons.
    """
    from msnmo_bids.reports.participant import write_participant_report

    now = {"Scans": list(entries), "Comparisons": list(comparison_entries)}
    runs = [*read_runs(output_dir), now]
    latest, latest_compared = latest_statuses(runs), latest_comparisons(runs)
    by_subject: dict[str, list[Scan]] = defaultdict(list)
    for scan in plan.selection.available:
        by_subject[scan.subject].append(scan)
    for subject in subjects:
        scans: list[dict[str, Any]] = []
        failures: list[dict[str, Any]] = []
        for scan in by_subject[subject]:
            entry = latest.get(scan.relative)
            there = diagnosis_path(scan, output_dir).is_file()
            failed = entry is not None and entry["Status"] == FAILED
            if entry is not None and failed and not there:
                failures.append(entry)
            status = OK if there else (FAILED if failed else SKIPPED)
            scans.append({**scan_entry(scan, status), "SkullStripped": scan.skull_stripped})
        write_participant_report(
            output_dir,
            subject,
            scans,
            failures,
            changes=changes_of_visits(by_subject[subject], output_dir, latest_compared),
            settings=_settings(output_dir, plan, by_subject[subject]),
            version=get_version(),
        )


def changes_of_visits(
    scans: Sequence[Scan], output_dir: Path, latest: Mapping[str, Mapping[str, Any]]
) -> list[VisitsRecord]:
    """Return what a report says of the comparisons of a participant's visits, in order.

    Parameters
    ----------
    scans : sequence of Scan
        Of one participant.
    output_dir : Path
        Output folder.
    latest : mapping
        Latest entry of each comparison in ``run.json``, by its name.

    Returns
    -------
    list of VisitsRecord
    """
    from msnmo_bids.reports.visits import VisitsRecord

    found = []
    for comparison in possible_comparisons(scans, output_dir):
        entry = latest.get(comparison.name, {})
        problem = why_not_comparable(comparison, output_dir) or ""
        if not problem and entry.get("Status") == FAILED:
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


def report_is_current(output_dir: Path, subject: str, scans: Sequence[Scan]) -> bool:
    """Say whether a participant's report is there and newer than what it reports.

    Parameters
    ----------
    output_dir : Path
        Output folder.
    subject : str
        Label without ``sub-``.
    scans : sequence of Scan
        Scans of this participant, and maybe of others.

    Returns
    -------
    bool
        False when it must be written.
    """
    report = output_dir / report_path(subject)
    if not report.is_file():
        return False
    written = report.stat().st_mtime_ns
    diagnoses = [diagnosis_path(scan, output_dir) for scan in scans if scan.subject == subject]
    records = [
        output_dir / paths_of(comparison)["record"]
        for comparison in possible_comparisons(
            [scan for scan in scans if scan.subject == subject], output_dir
        )
    ]
    files = [path for path in (*diagnoses, *records) if path.is_file()]
    return all(path.stat().st_mtime_ns <= written for path in files)
