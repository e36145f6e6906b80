"""The group level: tables and page over all participants, from what they wrote."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msnmo_bids.bids.dataset import read_description, write_participants
from msnmo_bids.bids.records import Status
from msnmo_bids.bids.runs import latest_records, read_runs
from msnmo_bids.bids.scans import Scan
from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.run.checks import check_folders, check_input, check_within
from msnmo_bids.run.options import AppOptions
from msnmo_bids.run.plan import select
from msnmo_bids.run.reports import standing
from msnmo_bids.run.session import Session
from msnmo_bids.version import get_version

if TYPE_CHECKING:
    from msnmo_bids.group.settings import GroupSettings

logger = logging.getLogger(__name__)


def run_group(options: AppOptions, session: Session) -> None:
    """Run the group level.

    Parameters
    ----------
    options : AppOptions
        From the command line.
    session : Session
        Gets the number of scans with results; scans without are rows with ``n/a``, not failures
        of this level.

    Raises
    ------
    MsnmoError
        If the participant level has not been run (66), there are no manual masks where the user
        says (66), a column or class does not exist (64), and as the participant level.
    """
    check_input(options)
    if not read_description(options.output_dir):
        raise MsnmoError(
            "there are no results of the participant level in the output folder",
            file=options.output_dir,
            remedy="Run the participant level first",
            exit_code=ExitCode.INPUT_MISSING,
        )
    check_folders(options)
    check_within(options.output_dir, ("figures", "phenotype"))
    scans = select(options.bids_dir, options).scans
    latest = latest_records(read_runs(options.output_dir))
    records = [standing(scan, options.output_dir, latest) for scan in scans]
    count = sum(record.status == Status.COMPLETE for record in records)
    if options.dry_run:
        logger.info("Would write a table of %d scans, %d of them with results", len(scans), count)
        return
    from msnmo_bids.group.write import write_group

    settings = _settings(options, scans)
    write_participants(options.output_dir)
    write_group(
        options.output_dir,
        records,
        version=get_version(),
        bids_dir=options.bids_dir,
        settings=settings,
    )
    for record in records:
        if record.status != Status.COMPLETE:
            logger.warning("%s: no results (%s): n/a in the table", record.relative, record.message)
    logger.info("Group table and page: %d scans, %d with results", len(scans), count)
    session.ok = count


def _settings(options: AppOptions, scans: Sequence[Scan]) -> GroupSettings:
    """Return what the user asks for, with the manual mask of each scan."""
    from msnmo_bids.group.settings import Columns, GroupSettings
    from msnmo_bids.labelled.lesion_masks import LABEL_FOLDERS, LesionMasks

    columns = Columns(
        diagnosis=options.diagnosis_column,
        site=options.site_column,
        age=options.age_column,
        scanner=options.scanner_column or "",
    )
    if options.labels is None:
        return GroupSettings(columns, options.positive or "")
    folder = options.bids_dir / options.labels
    found = LesionMasks(folder, scans)
    masks = {scan.relative: found.of(scan) for scan in scans}
    usable = {name: path for name, (path, _) in masks.items() if path is not None}
    if not usable:
        reasons = sorted({reason for _, reason in masks.values()})
        raise MsnmoError(
            f"no scan has a manual lesion mask there ({'; '.join(reasons[:3])})",
            file=folder,
            remedy=f"Give --labels from the input's root, for example {LABEL_FOLDERS[0]}",
            exit_code=ExitCode.INPUT_MISSING,
        )
    missing = {name: reason for name, (path, reason) in masks.items() if path is None}
    return GroupSettings(columns, options.positive or "", usable, missing)
