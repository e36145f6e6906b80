"""What is checked before any work: input, output and work folder, and what a run is not about."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from msnmo_bids.bids.dataset import (
    check_is_ours,
    dataset_description,
    read_description,
    subject_folders,
)
from msnmo_bids.bids.records import ScanRecord, scans_with_results
from msnmo_bids.bids.resume import (
    RAW_IMAGE,
    diagnosis_path,
    glance,
    image_differs,
    read_diagnosis,
)
from msnmo_bids.bids.scans import Scan
from msnmo_bids.errors import ExitCode, MissingInputError, MsnmoError, UsageError
from msnmo_bids.run.options import OUTPUT, WORK, Folders
from msnmo_bids.run.resources import settle_user
from msnmo_bids.text import Note, listed

logger = logging.getLogger(__name__)

VALIDATOR = "bids-validator-deno"
SHOWN_ISSUES = 5
#: What the validator says of an image that cannot be read, or of a git-annex link without content.
#: Such a scan fails by itself, in words and with a remedy; it must not stop the others.
IMAGE_CODES = ("EMPTY_FILE", "SYMLINK_BROKEN", "NIFTI_HEADER_UNREADABLE")
IMAGE_SUFFIXES = (".nii", ".nii.gz")
LONELY_SIDECAR = "SIDECAR_WITHOUT_DATAFILE"


class Places(Protocol):
    """Options that say what a program reads and writes, as :class:`Folders` does."""

    @property
    def reads(self) -> tuple[Path, ...]:
        """The folders into which nothing is written."""

    @property
    def writes(self) -> dict[str, Path | None]:
        """Every folder that the program writes to, by what it is called; None: not given."""


def check_folders(options: Folders) -> None:
    """Check input and output, and every other place that is written to, before anything is made.

    Raises
    ------
    MsnmoError
        If the input is missing (66), if the output holds another data set (73), and as
        :func:`check_places`.
    """
    check_input(options)
    check_places(options)
    check_is_ours(options.output_dir)


def check_places(options: Places) -> None:
    """Check every folder that a program writes to, and that for temporary files.

    Raises
    ------
    MsnmoError
        If a folder lies in what is only read, or two are the same (64), or if it cannot be
        written (73).
    """
    places = {what: folder for what, folder in options.writes.items() if folder is not None}
    for what, folder in places.items():
        _check_place(options, folder, what)
    for what, folder in places.items():
        check_writable(folder, what)
    settle_user(places.get(WORK))


def check_within(output_dir: Path, names: Iterable[str]) -> None:
    """Check folders in an output folder, or those in which they will be made: others may own them.

    Raises
    ------
    MsnmoError
        If one cannot be written (73).
    """
    there = {
        next(p for p in (folder, *folder.parents) if os.path.lexists(p))
        for folder in (output_dir.absolute() / name for name in names)
    }
    for folder in sorted(there):
        check_writable(folder, "folder")


def check_input(options: Folders) -> None:
    """Check that the input is a folder that can be read.

    Raises
    ------
    MsnmoError
        With exit code 66; 64 if the output is a data set, and so the two are in the wrong order.
    """
    bids_dir, output_dir = options.bids_dir, options.output_dir
    if os.access(bids_dir, os.R_OK | os.X_OK) and bids_dir.is_dir():
        return
    there = os.access(bids_dir, os.F_OK)  # Path.exists raises where a folder above is locked
    problem = "is not a folder that can be read" if there else "does not exist"
    derived = read_description(output_dir).get("DatasetType") == "derivative"
    if output_dir.is_dir() and subject_folders(output_dir) and not derived:
        raise UsageError(
            f"the input {problem}, and the output holds participants: the arguments are in the "
            "wrong order",
            file=bids_dir,
            remedy="Give the input first, then the output",
        )
    raise MissingInputError(
        f"the input {problem}", file=bids_dir, remedy="Give the root folder of a BIDS data set"
    )


def _check_place(options: Places, folder: Path, what: str) -> None:
    """Refuse a folder in one that is only read, and a work folder that is the output folder.

    ``INPUT/derivatives/<name>`` is the one place in a data set that BIDS has for an output.
    """
    may_be_derivatives = what == OUTPUT and isinstance(options, Folders)
    target = _real(folder)
    for source in options.reads:
        root = _real(source)
        if not target.is_relative_to(root):
            continue
        inside = target.relative_to(root).parts
        if may_be_derivatives and len(inside) > 1 and inside[0] == "derivatives":
            continue
        where = "in the input" if inside else "the input"
        also = f", or {source / 'derivatives' / 'msnmo'}" if may_be_derivatives else ""
        raise UsageError(
            f"the {what} is {where} ({source}), into which nothing is written",
            file=folder,
            remedy=f"Choose a folder outside of it{also}",
        )
    output = options.writes[OUTPUT]
    if what == WORK and output is not None and target == _real(output):
        raise UsageError(
            "the work folder is the output folder", file=folder, remedy="Choose another one (-w)"
        )


def _real(folder: Path) -> Path:
    return Path(os.path.realpath(folder))


def check_writable(folder: Path, what: str) -> None:
    """Prove that files can be written into a folder (`what` it is called), and leave no trace.

    Raises
    ------
    MsnmoError
        If it cannot be made or written (73).
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"msnmo")
    except OSError as error:
        raise MsnmoError(
            f"the {what} cannot be written ({error.strerror or error})",
            file=folder,
            remedy="Choose a folder in which you may write, on a disk with room",
            exit_code=ExitCode.CANNOT_CREATE_OUTPUT,
        ) from error
    finally:
        for path in missing:
            with suppress(OSError):  # never made, or another run uses it already
                path.rmdir()


def work_folder(options: Folders) -> Path:
    """Return the work folder of a run, absolute, made and writable.

    Without ``--work-dir`` it is ``work`` in the current folder, as with fMRIPrep; where that
    cannot be written (a container's root, a shared folder) or lies in the input, a temporary one.
    """
    folder = (options.work_dir or Path("work")).resolve()
    try:
        _check_place(options, folder, WORK)
        check_writable(folder, WORK)
        folder.mkdir(parents=True, exist_ok=True)
    except MsnmoError as problem:
        if options.work_dir is not None:
            raise
        folder = Path(tempfile.mkdtemp(prefix="msnmo-work-"))
        logger.info("The work folder is %s (%s)", folder, problem)
    return folder


def validate_bids(bids_dir: Path, participants: Sequence[str] | None = None) -> None:
    """Run the BIDS validator on the input.

    Unreadable images do not count (each scan is checked and reported by itself), and neither do
    files of participants that were not asked for. Headers are not validated for the same reason.

    Raises
    ------
    MsnmoError
        If the data set has errors (16).
    """
    program = find_validator()
    if program is None:
        logger.warning("The BIDS validator (%s) is not installed: input not validated", VALIDATOR)
        return
    logger.info("Validating the input (--skip-bids-validation saves the time)")
    command = [program, str(bids_dir.resolve()), "--ignoreWarnings", "--ignoreNiftiHeaders",
               "--format", "json"]  # fmt: skip
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        issues = json.loads(ran.stdout)["issues"]
        found: list[dict[str, Any]] = issues["issues"]
        meanings: dict[str, str] = issues.get("codeMessages", {})
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("The BIDS validator did not run (%s): input not validated", error)
        return
    if errors := [issue for issue in found if _counts(issue, bids_dir, participants)]:
        raise _invalid(bids_dir, errors, meanings)
    logger.info("The input is valid BIDS")


def find_validator() -> str | None:
    """Return the validator's program: the one of this environment, else the one on the PATH."""
    own = Path(sys.executable).parent / VALIDATOR
    return str(own) if own.is_file() else shutil.which(VALIDATOR)


def _counts(issue: dict[str, Any], bids_dir: Path, participants: Sequence[str] | None) -> bool:
    code, location = issue.get("code"), str(issue.get("location") or "").lstrip("/")
    if issue.get("severity") != "error":
        return False
    if code in IMAGE_CODES and location.endswith(IMAGE_SUFFIXES):
        return False
    stem = bids_dir / location.removesuffix(".json")
    if code == LONELY_SIDECAR and any(
        stem.with_name(f"{stem.name}{suffix}").is_symlink() for suffix in IMAGE_SUFFIXES
    ):
        return False
    subject = location.split("/")[0]
    if participants is None or not subject.startswith("sub-"):
        return True
    return subject.removeprefix("sub-") in participants


def _invalid(bids_dir: Path, errors: list[dict[str, Any]], meanings: dict[str, str]) -> MsnmoError:
    for issue in errors[:SHOWN_ISSUES]:
        code = str(issue.get("code"))
        meaning = issue.get("issueMessage") or meanings.get(code) or ""
        logger.error("%s: %s: %s", issue.get("location"), code, " ".join(str(meaning).split()))
    more = len(errors) - SHOWN_ISSUES
    if more > 0:
        logger.error("... and %d more", more)
    return MsnmoError(
        f"the input is not a valid BIDS data set ({len(errors)} errors)",
        file=bids_dir,
        remedy=f"Correct it (run {VALIDATOR} on it), or use --skip-bids-validation",
        exit_code=ExitCode.INVALID_BIDS,
    )


def check_same_dataset(bids_dir: Path, output_dir: Path, scans: Iterable[Scan]) -> None:
    """Refuse to replace results of people who have the same labels in another data set.

    `scans` are those that are to run. A data set that was moved keeps its name; one without a name
    is told by its place.

    Raises
    ------
    UsageError
        If the output was made from another data set and an image of the same name differs.
    """
    before, now = read_description(output_dir), dataset_description(output_dir, bids_dir)
    keys = ["Name"] if "Name" in read_description(bids_dir) else ["Name", "DatasetLinks"]
    if not before or all(before.get(key) == now[key] for key in keys):
        return
    changed = [
        scan.relative
        for scan in scans
        if image_differs(scan, (read_diagnosis(scan, output_dir) or {}).get(RAW_IMAGE))
    ]
    if not changed:
        return
    raise UsageError(
        f"the output folder holds results of another data set ({before.get('Name', 'no name')}), "
        f"and scans of the same name have other images here: {listed(changed)}",
        file=output_dir,
        remedy="Choose another output folder; if these are the same people, use --overwrite",
    )


NO_PERSON = (
    "participants in the output folder who are no longer in the input; their files stay there and "
    "are not used"
)
NO_IMAGE = (
    "scans with results whose raw image is no longer in the input; their files stay in the output "
    "folder and are not used"
)
NO_CONTENT = (
    "scans whose raw image has no content here (git-annex, git-lfs), so it cannot be checked "
    "whether their results are still those of the image"
)
NOT_ASKED = (
    "scans with results that were not asked for, so that page and tables are not about the whole "
    "cohort (run the group level without filters)"
)


def left_over(bids_dir: Path, output_dir: Path, scans: Iterable[Scan]) -> list[Note]:
    """Name the results that belong to nothing in the input, and those that cannot be checked.

    `scans` are those that a run is about.
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
