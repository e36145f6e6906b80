"""The BIDS validator: whether the input is a valid BIDS data set."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msnmo_bids.errors import ExitCode, MsnmoError

logger = logging.getLogger(__name__)

VALIDATOR = "bids-validator-deno"
SHOWN_ISSUES = 5
#: What the validator says of an image that cannot be read, or of a git-annex link without content.
#: Such a scan fails by itself, in words and with a remedy; it must not stop the others.
IMAGE_CODES = ("EMPTY_FILE", "SYMLINK_BROKEN", "NIFTI_HEADER_UNREADABLE")
IMAGE_SUFFIXES = (".nii", ".nii.gz")
LONELY_SIDECAR = "SIDECAR_WITHOUT_DATAFILE"


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


def _counts(issue: dict[str, Any], bids_dir: Path, participants: Sequence[str] | None) -> bool:
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
        f"the input is not a valid BIDS data set ({len(errors)} errors)",
        file=bids_dir,
        remedy=f"Correct it (run {VALIDATOR} on it), or use --skip-bids-validation",
        exit_code=ExitCode.INVALID_BIDS,
    )
