"""What came of a run: its record, its reports and its exit code, from what is on disk."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msnmo_bids.bids.dataset import write_participants
from msnmo_bids.bids.runs import FAILED, OK, SKIPPED, scan_entry
from msnmo_bids.bids.scans import Scan
from msnmo_bids.cli.job import Job
from msnmo_bids.cli.outputs import report_is_current, write_reports
from msnmo_bids.cli.session import Outcome, Session
from msnmo_bids.errors import ExitCode

if TYPE_CHECKING:
    from msnmo_bids.workflows.execution import Failure

logger = logging.getLogger(__name__)

#: Step of scans that were not begun, because the run stopped at its first failure.
WAITING = "waiting"


def finish(job: Job, session: Session, *, ended_by: ExitCode | None = None) -> Outcome:
    """Write the record and the reports of a run; say what failed.

    Parameters
    ----------
    job : Job
        The run.
    session : Session
        Gets the final counts.
    ended_by : ExitCode, optional
        Why the run ended before its end (interrupted, an unexpected error). Then scans without
        result have not failed: they have no entry, the next run processes them and writes the
        reports.

    Returns
    -------
    Outcome
        Counts and exit code.
    """
    entries, codes = _entries(job, ended=ended_by is not None)
    for failure in job.failures:
        if not failure.prefix:
            logger.error("%s: %s. %s", failure.step, failure.message, failure.remedy or "")
            codes.append(failure.exit_code)
    for failure in job.comparison_failures:
        logger.error("%s: %s: %s. %s", failure.prefix, failure.step, failure.message,
                     failure.remedy or "")  # fmt: skip
        codes.append(failure.exit_code)
    if ended_by is None and not _write_reports(job, session, entries):
        codes.append(ExitCode.FAILURE)
    session.ok = sum(entry["Status"] in (OK, SKIPPED) for entry in entries)
    session.failed = len(job.plan.selection.scans) - session.ok
    exit_code = exit_code_of(codes) if ended_by is None else ended_by
    job.record.scans = entries
    job.record.write(exit_code)
    for entry in entries:
        if entry["Status"] == FAILED:
            logger.error("%s", failure_line(entry))
    job.tidy()
    if session.failed:
        logger.info("Log and crash files: %s", job.record.folder)
    logger.info(
        "%d of %d scans have their derivatives in %s",
        session.ok, len(job.plan.selection.scans), job.output_dir,
    )  # fmt: skip
    return session.outcome(exit_code)


def _entries(job: Job, *, ended: bool) -> tuple[list[dict[str, Any]], list[ExitCode]]:
    """Return an entry a scan for the record, and the exit codes of the failures."""
    by_prefix = {failure.prefix: failure for failure in job.failures}
    entries = [scan_entry(scan, SKIPPED) for scan in job.plan.complete]
    codes = []
    for scan in job.plan.to_run:
        reason = job.why_incomplete(scan)
        failure = by_prefix.get(scan.prefix)
        if reason is None:
            entries.append(scan_entry(scan, OK))
        elif failure is not None:
            entries.append(_failed_entry(job, scan, failure))
            if failure.step != WAITING:
                codes.append(failure.exit_code)
        elif not ended:
            step, message = WAITING, "not processed, because the run stopped at the first failure"
            if not job.stopped:
                step, message = "workflow", f"no derivatives at the end of the run: {reason}"
                codes.append(ExitCode.FAILURE)
            entries.append(scan_entry(scan, FAILED, step=step, message=message, remedy="Run again"))
    return entries, codes


def _write_reports(job: Job, session: Session, entries: Sequence[dict[str, Any]]) -> bool:
    """Write the reports of all participants that this run touched; say whether that worked.

    A report that cannot be written must not cost the record of a run that took a night.
    """
    write_participants(job.output_dir)
    touched = {scan.subject for scan in job.plan.to_run}
    touched |= {comparison.subject for comparison in job.plan.comparisons}
    subjects = [
        subject
        for subject in dict.fromkeys(scan.subject for scan in job.plan.selection.scans)
        if subject in touched
        or not report_is_current(job.output_dir, subject, job.plan.selection.scans)
    ]
    try:
        write_reports(
            job.output_dir,
            job.plan,
            subjects=subjects,
            entries=entries,
            comparison_entries=job.record.comparisons,
        )
    except Exception as error:
        logger.error("The reports could not be written: %s. Trace: %s; the derivatives are "
                     "complete, try --reports-only", error, session.write_crash_file())  # fmt: skip
        return False
    return True


def _failed_entry(job: Job, scan: Scan, failure: Failure) -> dict[str, Any]:
    return scan_entry(
        scan,
        FAILED,
        step=failure.step,
        message=failure.message.removeprefix(f"{scan.path}: "),
        remedy=failure.remedy,
        crash_file=job.shown_crash_file(failure),
    )


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


def failure_line(entry: dict[str, Any]) -> str:
    """Return a failed scan's one line: file, step, problem and remedy.

    Parameters
    ----------
    entry : dict
        From ``run.json``.

    Returns
    -------
    str
        ``<file>: <step>: <problem>. <remedy>``.
    """
    remedy = f". {entry['Remedy']}" if entry["Remedy"] else ""
    line = f"{entry['Scan']}: {entry['Step']}: {entry['Message']}{remedy}"
    return " ".join(line.split())
