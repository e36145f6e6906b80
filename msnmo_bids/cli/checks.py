"""What is checked before any work: folders, labels, the input's BIDS."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from msnmo_bids.bids.dataset import check_is_ours
from msnmo_bids.errors import ExitCode, MsnmoError, UsageError

logger = logging.getLogger(__name__)

VALIDATOR = "bids-validator-deno"
SHOWN_ISSUES = 5
#: What the validator says of an image that cannot be read, or of a git-annex link without content.
#: Such a scan fails by itself, in words and with a remedy; it must not stop the others.
IMAGE_CODES = ("EMPTY_FILE", "SYMLINK_BROKEN", "NIFTI_HEADER_UNREADABLE")
IMAGE_SUFFIXES = (".nii", ".nii.gz")
LONELY_SIDECAR = "SIDECAR_WITHOUT_DATAFILE"


def check_folders(options: argparse.Namespace) -> None:
    """Check input, output and work folder before anything is made.

    Parameters
    ----------
    options : argparse.Namespace
        From :func:`msnmo_bids.cli.parser.parse_args`.

    Raises
    ------
    MsnmoError
        If the input is missing (66), if the output or the work folder is the input or lies in it
        (64), if the output holds another data set or cannot be written (73).
    """
    check_input(options.bids_dir)
    check_output_place(options.bids_dir, options.output_dir)
    if options.work_dir is not None:
        check_work_place(options.bids_dir, options.output_dir, options.work_dir)
        check_writable(options.work_dir, "work folder")
    check_is_ours(options.output_dir)
    check_writable(options.output_dir, "output folder")


def check_input(bids_dir: Path) -> None:
    """Check that the input is a folder that can be read.

    Raises
    ------
    MsnmoError
        With exit code 66.
    """
    if bids_dir.is_dir() and os.access(bids_dir, os.R_OK | os.X_OK):
        return
    problem = "does not exist" if not bids_dir.exists() else "is no folder that can be read"
    raise MsnmoError(
        f"the input {problem}",
        file=bids_dir,
        remedy="Give the root folder of a BIDS data set",
        exit_code=ExitCode.INPUT_MISSING,
    )


def check_output_place(bids_dir: Path, output_dir: Path) -> None:
    """Check that the output is not the input and not in it.

    ``INPUT/derivatives/<name>`` is the one place in the input that BIDS has for derivatives.

    Raises
    ------
    UsageError
        If the output lies elsewhere in the input.
    """
    source, target = bids_dir.resolve(), output_dir.resolve()
    suggestion = f"Choose a folder outside of it, or {bids_dir / 'derivatives' / 'msnmo'}"
    if target == source:
        raise UsageError(
            "the output folder is the input folder", file=output_dir, remedy=suggestion
        )
    inside = target.parts[len(source.parts) :] if target.is_relative_to(source) else ()
    if inside and not (inside[0] == "derivatives" and len(inside) > 1):
        raise UsageError("the output folder is in the input folder", file=output_dir,
                         remedy=suggestion)  # fmt: skip


def check_work_place(bids_dir: Path, output_dir: Path, work_dir: Path) -> None:
    """Check that the work folder is neither in the input nor the output itself.

    Raises
    ------
    UsageError
        If it is.
    """
    work = work_dir.resolve()
    if work.is_relative_to(bids_dir.resolve()):
        raise UsageError("the work folder is in the input folder", file=work_dir,
                         remedy="Choose a folder outside of it (-w)")  # fmt: skip
    if work == output_dir.resolve():
        raise UsageError("the work folder is the output folder", file=work_dir,
                         remedy="Choose another one (-w)")  # fmt: skip


def check_writable(folder: Path, what: str) -> None:
    """Prove that files can be written into a folder; one that is missing is missing afterwards.

    Parameters
    ----------
    folder : Path
        The folder.
    what : str
        What to call it.

    Raises
    ------
    MsnmoError
        If it cannot be made or written (73).
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
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


def work_folder(options: argparse.Namespace) -> Path:
    """Return the work folder of a run, made and writable.

    Without ``--work-dir`` it is ``work`` in the current folder, as with fMRIPrep; where that
    cannot be written (a container's root, a shared folder) or lies in the input, a temporary one.

    Parameters
    ----------
    options : argparse.Namespace
        From the command line.

    Returns
    -------
    Path
        Absolute.
    """
    folder = (options.work_dir or Path("work")).resolve()
    try:
        check_work_place(options.bids_dir, options.output_dir, folder)
        check_writable(folder, "work folder")
        folder.mkdir(parents=True, exist_ok=True)
    except MsnmoError as problem:
        if options.work_dir is not None:
            raise
        folder = Path(tempfile.mkdtemp(prefix="msnmo-work-"))
        logger.info("The work folder is %s (%s)", folder, problem)
    return folder


def validate_bids(bids_dir: Path, participants: list[str] | None = None) -> None:
    """Run the BIDS validator on the input.

    Unreadable images do not count (each scan is checked and reported by itself), and neither do
    files of participants that were not asked for. Headers are not validated for the same reason.

    Parameters
    ----------
    bids_dir : Path
        Root of the data set.
    participants : list of str, optional
        Labels asked for.

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
    errors = [
        issue
        for issue in found
        if issue.get("severity") == "error" and _counts(issue, bids_dir, participants)
    ]
    if errors:
        raise _invalid(bids_dir, errors, meanings)
    logger.info("The input is valid BIDS")


def find_validator() -> str | None:
    """Return the validator's program: the one of this environment, else the one on the PATH."""
    own = Path(sys.executable).parent / VALIDATOR
    return str(own) if own.is_file() else shutil.which(VALIDATOR)


def _counts(issue: dict[str, Any], bids_dir: Path, participants: list[str] | None) -> bool:
    code, location = issue.get("code"), str(issue.get("location") or "").lstrip("/")
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
        f"the input is no valid BIDS data set ({len(errors)} errors)",
        file=bids_dir,
        remedy=f"Correct it (run {VALIDATOR} on it), or use --skip-bids-validation",
        exit_code=ExitCode.INVALID_BIDS,
    )
