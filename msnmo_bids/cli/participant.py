"""The participant level: from the command line to derivatives, reports and the run's record."""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msnmo_bids.bids.dataset import shared_files_complete, write_shared_files
from msnmo_bids.bids.names import report_path
from msnmo_bids.bids.resume import diagnosis_path, read_diagnosis
from msnmo_bids.bids.runs import FAILED, OK, SKIPPED, latest_statuses, read_runs, scan_entry
from msnmo_bids.bids.scans import Scan, select_subjects
from msnmo_bids.cli.checks import check_folders, validate_bids
from msnmo_bids.cli.plan import MACHINE_SETTINGS, Plan, make_plan, plan_table, with_machine
from msnmo_bids.cli.session import Outcome, Session
from msnmo_bids.errors import ExitCode
from msnmo_bids.version import get_version

logger = logging.getLogger(__name__)


def run_participant(options: argparse.Namespace, session: Session) -> Outcome:
    """Run the participant level.

    Parameters
    ----------
    options : argparse.Namespace
        From the command line.
    session : Session
        Log and counts of this call.

    Returns
    -------
    Outcome
        Counts and exit code.

    Raises
    ------
    MsnmoError
        If the run cannot begin.
    """
    check_folders(options)
    select_subjects(options.bids_dir, options.participant_label)
    plan = make_plan(options)
    if plan.to_run and not options.skip_bids_validation and not options.reports_only:
        validate_bids(options.bids_dir, options.participant_label)
    if options.dry_run:
        logger.info("%s", plan_table(plan))
        return Outcome()
    if options.reports_only:
        return _only_reports(options, plan)
    if not plan.to_run:
        return _nothing_to_do(options, plan)
    # Nipype is imported by this module, with the environment that it needs.
    from msnmo_bids.cli.processing import process

    return process(options, with_machine(plan), session)


def _nothing_to_do(options: argparse.Namespace, plan: Plan) -> Outcome:
    """Say that all is complete; replace what a killed run did not come to write."""
    count = len(plan.complete)
    if not shared_files_complete(options.output_dir):
        write_shared(options, plan)
    stale = [
        subject
        for subject in _subjects(plan.complete)
        if not report_is_current(options.output_dir, subject, plan.complete)
    ]
    if stale:
        write_reports(options.output_dir, plan, subjects=stale)
    logger.info("Nothing to do: %d of %d scans complete", count, count)
    return Outcome(ok=count)


def _only_reports(options: argparse.Namespace, plan: Plan) -> Outcome:
    """Write the reports again, from what is there."""
    write_shared(options, plan)
    subjects = _subjects(plan.selection.scans)
    write_reports(options.output_dir, plan, subjects=subjects)
    if plan.to_run:
        logger.warning("%d scans are not complete: the reports say so", len(plan.to_run))
    logger.info("Reports written: %d", len(subjects))
    return Outcome(ok=len(plan.complete))


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
    output_dir: Path, plan: Plan, *, subjects: Iterable[str], entries: Sequence[dict] = ()
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
    entries : sequence of dict
        Entries of this run, which no ``run.json`` holds yet.
    """
    from msnmo_bids.reports.participant import write_participant_report

    latest = latest_statuses([*read_runs(output_dir), {"Scans": list(entries)}])
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
            settings=_settings(output_dir, plan, by_subject[subject]),
            version=get_version(),
        )


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


def exit_code_of(codes: Sequence[ExitCode]) -> ExitCode:
    """Return the exit code of a run from those of its failures.

    Parameters
    ----------
    codes : sequence of ExitCode
        One a failure.

    Returns
    -------
    ExitCode
        0 without failures; 65 when all are bad data; else the code that the other failures have
        in common, or 1.
    """
    others = {code for code in codes if code != ExitCode.BAD_DATA}
    if not codes:
        return ExitCode.OK
    if not others:
        return ExitCode.BAD_DATA
    return others.pop() if len(others) == 1 else ExitCode.FAILURE


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
    return all(path.stat().st_mtime_ns <= written for path in diagnoses if path.is_file())


def _subjects(scans: Iterable[Scan]) -> list[str]:
    return list(dict.fromkeys(scan.subject for scan in scans))
