"""The participant level: from the command line to derivatives, reports and the run's record."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable

from msnmo_bids.bids.dataset import shared_files_complete
from msnmo_bids.bids.scans import Scan, select_subjects
from msnmo_bids.cli.checks import check_folders, validate_bids
from msnmo_bids.cli.machine import with_machine
from msnmo_bids.cli.outputs import report_is_current, write_reports, write_shared
from msnmo_bids.cli.plan import Plan, make_plan, plan_table
from msnmo_bids.cli.session import Outcome, Session

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
    if not plan.to_run and not plan.comparisons:
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


def _subjects(scans: Iterable[Scan]) -> list[str]:
    return list(dict.fromkeys(scan.subject for scan in scans))
