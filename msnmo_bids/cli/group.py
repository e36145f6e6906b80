"""The group level: tables and page over all participants, from what they wrote."""

from __future__ import annotations

import argparse
import logging

from msnmo_bids.bids.dataset import read_description, write_participants
from msnmo_bids.bids.resume import diagnosis_path
from msnmo_bids.bids.runs import FAILED, OK, SKIPPED, latest_statuses, read_runs, scan_entry
from msnmo_bids.cli.checks import check_folders, check_input
from msnmo_bids.cli.plan import select
from msnmo_bids.cli.session import Outcome, Session
from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.version import get_version

logger = logging.getLogger(__name__)


def run_group(options: argparse.Namespace, session: Session) -> Outcome:
    """Run the group level.

    Parameters
    ----------
    options : argparse.Namespace
        From the command line.
    session : Session
        Log and counts of this call.

    Returns
    -------
    Outcome
        Number of scans with results; scans without are rows with ``n/a``, not failures of this
        level.

    Raises
    ------
    MsnmoError
        If the participant level has not been run (66), and as the participant level.
    """
    check_input(options.bids_dir)
    if not read_description(options.output_dir):
        raise MsnmoError(
            "there are no results of the participant level in the output folder",
            file=options.output_dir,
            remedy="Run the participant level first",
            exit_code=ExitCode.INPUT_MISSING,
        )
    check_folders(options)
    selection = select(options)
    latest = latest_statuses(read_runs(options.output_dir))
    rows = []
    for scan in selection.scans:
        entry = latest.get(scan.relative, {})
        if diagnosis_path(scan, options.output_dir).is_file():
            rows.append(scan_entry(scan, OK))
        elif entry.get("Status") == FAILED:
            rows.append({**entry, **_identity(scan_entry(scan, FAILED))})
        else:
            rows.append(scan_entry(scan, SKIPPED, message="not processed yet"))
    count = sum(row["Status"] == OK for row in rows)
    if options.dry_run:
        logger.info("Would write a table of %d scans, %d of them with results", len(rows), count)
        return Outcome()
    from msnmo_bids.reports.group import write_group

    write_participants(options.output_dir)
    write_group(options.output_dir, rows, version=get_version(), bids_dir=options.bids_dir)
    for row in rows:
        if row["Status"] != OK:
            logger.warning("%s: no results (%s): n/a in the table", row["Scan"], row["Message"])
    logger.info("Group table and page: %d scans, %d with results", len(rows), count)
    return Outcome(ok=count)


def _identity(entry: dict) -> dict:
    return {key: entry[key] for key in ("Scan", "Prefix", "Folder", "Subject", "Session")}
