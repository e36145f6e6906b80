"""What in the output folder a run is not about, and what it cannot tell."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from msnmo_bids.bids.dataset import subject_folders
from msnmo_bids.bids.raw_image import glance
from msnmo_bids.bids.records import ScanRecord, scans_with_results
from msnmo_bids.bids.resume import diagnosis_path
from msnmo_bids.bids.scans import Scan
from msnmo_bids.text import Note

NO_PERSON = (
    "participants in the output folder who are no longer in the input; their files stay there and "
    "are not used"
)
NO_IMAGE = (
    "scans with results whose raw image is no longer in the input; their files stay in the output "
    "folder and are not used"
)
NO_CONTENT = (
    "scans whose raw image has no content here (git-annex, git-lfs), so that nobody can tell "
    "whether their results are still those of the image"
)
NOT_ASKED = (
    "scans with results that were not asked for, so that page and tables are not about the whole "
    "cohort (run the group level without filters)"
)


def left_over(bids_dir: Path, output_dir: Path, scans: Iterable[Scan]) -> list[Note]:
    """Name the results that belong to nothing in the input, and those that cannot be checked.

    Parameters
    ----------
    bids_dir, output_dir : Path
        Root folders of the input and of the output.
    scans : iterable of Scan
        Those that a run is about.

    Returns
    -------
    list of Note
    """
    if not output_dir.is_dir():
        return []
    there = set(subject_folders(bids_dir))
    known = {page.stem.removeprefix("sub-") for page in output_dir.glob("sub-*.html")}
    known |= {*subject_folders(output_dir)}
    notes = [Note(NO_PERSON, f"sub-{label}") for label in sorted(known - there)]
    notes += [
        Note(NO_IMAGE, record.prefix)
        for record in scans_with_results(output_dir)
        if record.subject in there and not _has_image(bids_dir, record)
    ]
    return notes + [
        Note(NO_CONTENT, scan.relative)
        for scan in scans
        if glance(scan) is None and diagnosis_path(scan, output_dir).is_file()
    ]


def not_asked_for(bids_dir: Path, output_dir: Path, scans: Iterable[Scan]) -> list[Note]:
    """Name the scans of the input with results that a run is not about."""
    asked = {(scan.folder, scan.prefix) for scan in scans}
    return [
        Note(NOT_ASKED, record.prefix)
        for record in scans_with_results(output_dir)
        if (record.folder, record.prefix) not in asked and _has_image(bids_dir, record)
    ]


def _has_image(bids_dir: Path, record: ScanRecord) -> bool:
    """Say whether the raw image of a scan is in the input, as a link without content at least."""
    image = bids_dir / record.folder / f"{record.prefix}_FLAIR.nii"
    return os.path.lexists(image) or os.path.lexists(f"{image}.gz")
