"""What is checked before any work: input, output and work folder."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from msnmo_bids.bids.dataset import check_is_ours, read_description, subject_folders
from msnmo_bids.errors import ExitCode, MsnmoError, UsageError
from msnmo_bids.run.options import Folders

logger = logging.getLogger(__name__)


def check_folders(options: Folders) -> None:
    """Check input, output and work folder before anything is made.

    Raises
    ------
    MsnmoError
        If the input is missing (66), if the output or the work folder is the input or lies in it
        (64), if the output holds another data set or cannot be written (73).
    """
    check_input(options)
    check_output_place(options.bids_dir, options.output_dir)
    if options.work_dir is not None:
        check_work_place(options.bids_dir, options.output_dir, options.work_dir)
        check_writable(options.work_dir, "work folder")
    check_is_ours(options.output_dir)
    check_writable(options.output_dir, "output folder")


def check_input(options: Folders) -> None:
    """Check that the input is a folder that can be read.

    Raises
    ------
    MsnmoError
        With exit code 66; 64 if the output is a data set, and so the two are in the wrong order.
    """
    bids_dir, output_dir = options.bids_dir, options.output_dir
    if bids_dir.is_dir() and os.access(bids_dir, os.R_OK | os.X_OK):
        return
    problem = "does not exist" if not bids_dir.exists() else "is not a folder that can be read"
    derived = read_description(output_dir).get("DatasetType") == "derivative"
    if output_dir.is_dir() and subject_folders(output_dir) and not derived:
        raise UsageError(
            f"the input {problem}, and the output holds participants: the arguments are in the "
            "wrong order",
            file=bids_dir,
            remedy="Give the input first, then the output",
        )
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


def work_folder(options: Folders) -> Path:
    """Return the work folder of a run, made and writable.

    Without ``--work-dir`` it is ``work`` in the current folder, as with fMRIPrep; where that
    cannot be written (a container's root, a shared folder) or lies in the input, a temporary one.

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
