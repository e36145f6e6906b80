"""The group level: tables and page over all participants, from what they wrote."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from msnmo_bids.bids.change_files import origin_of
from msnmo_bids.bids.dataset import check_is_ours, read_description, write_participants
from msnmo_bids.bids.records import (
    ScanRecord,
    Status,
    in_order,
    latest_records,
    read_runs,
    read_scan,
    scans_with_results,
    source_of,
)
from msnmo_bids.bids.resume import RAW_IMAGE, VOXELS
from msnmo_bids.bids.scans import Scan, unknown_label
from msnmo_bids.errors import ExitCode, MissingInputError, MsnmoError
from msnmo_bids.run.options import AppOptions, without_effect
from msnmo_bids.run.plan import select
from msnmo_bids.run.preflight import (
    check_folders,
    check_input,
    check_within,
    check_writable,
    left_over,
    not_asked_for,
)
from msnmo_bids.run.record import standing
from msnmo_bids.run.resources import settle_user
from msnmo_bids.run.session import Session
from msnmo_bids.text import Note, merged

if TYPE_CHECKING:
    from msnmo_bids.group.write import GroupSettings

logger = logging.getLogger(__name__)

_LABELS_REMEDY = (
    "Give --labels from the input's root, for example derivatives/manual; masks are named as their "
    "scans, …_label-L_mask.nii.gz"
)


def run_group(options: AppOptions, session: Session) -> None:
    """Run the group level, from the output folder alone where the input has no scans (any more).

    The session gets the number of scans with results; scans without are rows with ``n/a``, not
    failures of this level.

    Raises
    ------
    MsnmoError
        If the participant level has not been run (66), there are no manual masks where the user
        says (66), a column or class does not exist (64), and as the participant level.
    """
    if unused := without_effect(options):
        logger.warning("%s", unused)
    if not read_description(options.output_dir):
        check_input(options)
        raise _no_results(options)
    check_within(options.output_dir, ("figures", "phenotype"))
    scans, known, missing = _scans_of_input(options)
    latest = latest_records(read_runs(options.output_dir))
    if missing:
        records, notes = _from_output(options, latest), [_without_input(options, missing)]
    else:
        records = [standing(scan, options.output_dir, latest) for scan in scans]
        places = (options.bids_dir, options.output_dir)
        notes = merged([*left_over(*places, scans), *not_asked_for(*places, scans)])
    notes += [*made_differently(records), *copies(records)]
    for line in notes:
        logger.warning("%s", line)
    count = sum(record.status == Status.COMPLETE for record in records)
    if options.dry_run:
        logger.info("Would write a table of %d scans, %d of them with results", len(records), count)
        return
    from msnmo_bids.group.write import write_group

    settings = _settings(options, scans, known)
    write_participants(options.output_dir)
    write_group(
        options.output_dir,
        records,
        bids_dir=_tables(options),
        settings=settings,
        notes=notes,
    )
    for record in records:
        if record.status != Status.COMPLETE:
            logger.warning("%s: no results (%s): n/a in the table", record.relative, record.message)
    logger.info("Group table and page: %d scans, %d with results", len(records), count)
    session.ok = count


def made_differently(records: Sequence[ScanRecord]) -> list[str]:
    """Name the scans that were made by another version, weights or settings than most.

    Their volumes and scores are not comparable with the others'.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for one in records:
        if one.diagnosis:
            kinds[json.dumps(origin_of(one.diagnosis), sort_keys=True)].append(one.relative)
    _, *others = sorted(kinds.values(), key=len, reverse=True) or [[]]
    what = (
        "scans made by another version, weights or settings than most (columns software_version, "
        "weights and threshold): do not compare them with the others, or run them again"
    )
    return merged(Note(what, scan) for kind in others for scan in sorted(kind))


def copies(records: Sequence[ScanRecord]) -> list[str]:
    """Name the scans whose images have the same voxels: they count several times."""
    same: dict[str, list[str]] = defaultdict(list)
    for one in records:
        if checksum := (one.diagnosis.get(RAW_IMAGE) or {}).get(VOXELS):
            same[checksum].append(one.relative)
    what = "scans whose image is a copy of another one's, counted each: keep one of them"
    twice = [scans for scans in same.values() if len(scans) > 1]
    return merged(Note(what, " = ".join(sorted(scans))) for scans in twice)


def _scans_of_input(options: AppOptions) -> tuple[list[Scan], list[Scan], str]:
    """Return the scans of the input that are selected, and all of these participants.

    Or none and why the output folder alone has to do.
    """
    if options.bids_dir.resolve() == options.output_dir.resolve():
        return [], [], "the input is the output folder"
    try:
        check_folders(options)
        found = select(options.bids_dir, options)
        return list(found.scans), list(found.known), ""
    except MsnmoError as error:
        if error.exit_code != ExitCode.INPUT_MISSING:
            raise
        return [], [], f"{error.file}: {error.problem}"


def _from_output(options: AppOptions, latest: Mapping[str, ScanRecord]) -> list[ScanRecord]:
    """Return the scans that the participant level left in the output folder, in order.

    Raises
    ------
    MsnmoError
        If it left none, if a participant or session is not there (18), if the user asks for what
        only the input tells (66), or as the participant level for the output folder.
    """
    check_is_ours(options.output_dir)
    check_writable(options.output_dir, "output folder")
    settle_user(options.work_dir)
    asked = {
        "--labels": options.labels,
        "--exclude": options.exclude,
        "--bids-filter-file": options.bids_filter_file,
    }
    if needs := [name for name, value in asked.items() if value]:
        raise MissingInputError(
            f"{', '.join(needs)}: cannot be used without the input",
            file=options.bids_dir,
            remedy="Give the root folder of the BIDS data set",
        )
    found = [read_scan(options.output_dir, one) for one in scans_with_results(options.output_dir)]
    found = [replace(one, relative=source_of(one)) for one in found]
    there = {one.relative for one in found}
    found += [one for one in latest.values() if one.relative not in there]
    if not found:
        raise _no_results(options)
    people, sessions = options.participant_label, options.session_label
    _check_labels("participant", people, {one.subject for one in found})
    _check_labels("session", sessions, {one.session for one in found if one.session})
    found = [one for one in found if not people or one.subject in people]
    found = [one for one in found if not sessions or one.session in sessions]
    if not found:
        raise MsnmoError(
            "no scan in the output folder is of these participants and sessions",
            file=options.output_dir,
            exit_code=ExitCode.NOTHING_SELECTED,
        )
    return in_order(found)


def _check_labels(what: str, asked: Sequence[str] | None, there: set[str]) -> None:
    """Refuse labels that nothing in the output folder has (18)."""
    if missing := sorted({*(asked or ())} - there):
        raise unknown_label(what, missing, sorted(there))


def _without_input(options: AppOptions, missing: str) -> str:
    """Say what the group level lacks without the scans of the input."""
    lacks = (
        "" if _tables(options) else "diagnoses, sites, scanners and ages of the input's tables; "
    )
    return (
        f"{missing}. The group level is made from the output folder alone, without: {lacks}"
        "scans that no run has tried; whether the results are still those of the raw images"
    )


def _tables(options: AppOptions) -> Path | None:
    """Return the folder whose tables and sidecars tell of the scans, if there is one."""
    folder = options.bids_dir
    return folder if folder.is_dir() and folder.resolve() != options.output_dir.resolve() else None


def _no_results(options: AppOptions) -> MsnmoError:
    return MissingInputError(
        "there are no results of the participant level in the output folder",
        file=options.output_dir,
        remedy="Run the participant level first",
    )


def _settings(options: AppOptions, scans: Sequence[Scan], known: Sequence[Scan]) -> GroupSettings:
    """Return what the user asks for, with the manual mask of each scan among all that are known."""
    from msnmo_bids.group.cohort import Columns
    from msnmo_bids.group.write import GroupSettings
    from msnmo_bids.labelled.lesion_masks import LesionMasks

    columns = Columns(
        diagnosis=options.diagnosis_column,
        site=options.site_column,
        age=options.age_column,
        scanner=options.scanner_column or "",
    )
    if options.labels is None:
        return GroupSettings(columns, options.positive or "")
    folder = options.bids_dir / options.labels
    if not folder.is_dir():
        raise MissingInputError("there is no such folder", file=folder, remedy=_LABELS_REMEDY)
    found = LesionMasks(folder, known)
    for line in merged(found.unused()):
        logger.warning("%s: %s", folder, line)
    masks = {scan.relative: found.of(scan) for scan in scans}
    usable = {name: path for name, (path, _) in masks.items() if path is not None}
    if not usable:
        reasons = sorted({reason for _, reason in masks.values()})
        raise MissingInputError(
            f"no scan has a manual lesion mask there ({'; '.join(reasons[:3])})",
            file=folder,
            remedy=_LABELS_REMEDY,
        )
    missing = {name: reason for name, (path, reason) in masks.items() if path is None}
    for line in merged(Note(why.partition(" (")[0], name) for name, why in missing.items()):
        logger.warning("%s: %s", folder, line)
    return GroupSettings(columns, options.positive or "", usable, missing)
