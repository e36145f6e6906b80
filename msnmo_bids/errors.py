"""Errors that a user can act on, and the exit codes that tell them apart."""

from __future__ import annotations

import errno
import os
import re
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """Exit codes of the draft BIDS execution specification.

    ``run/record.py`` chooses that of a run of which some scans failed.
    """

    OK = 0
    FAILURE = 1
    INVALID_BIDS = 16
    UNKNOWN_LEVEL = 17
    NOTHING_SELECTED = 18
    USAGE = 64
    BAD_DATA = 65
    INPUT_MISSING = 66
    CANNOT_CREATE_OUTPUT = 73
    IO_ERROR = 74
    TEMPORARY_FAILURE = 75


#: What the exit codes of all programs mean.
MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FAILURE: "failed for another reason than the data",
    ExitCode.INVALID_BIDS: "the input is not valid BIDS",
    ExitCode.UNKNOWN_LEVEL: "unknown analysis level",
    ExitCode.NOTHING_SELECTED: "the filters select nothing",
    ExitCode.USAGE: "wrong usage",
    ExitCode.BAD_DATA: "some scans failed because of their data, or a table is malformed",
    ExitCode.INPUT_MISSING: "the input, a FLAIR or weights are missing",
    ExitCode.CANNOT_CREATE_OUTPUT: "the output cannot be created",
    ExitCode.IO_ERROR: "an input or output error, such as a full disk",
    ExitCode.TEMPORARY_FAILURE: "interrupted, or memory ran out: run again, it goes on",
}


class MsnmoError(Exception):
    """An error with a problem, without a full stop, a file and a remedy, printed as one line.

    `exit_code` is that of a run that stops here.
    """

    exit_code = ExitCode.FAILURE

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        remedy: str | None = None,
        exit_code: ExitCode | None = None,
    ) -> None:
        self.problem = problem
        self.file = None if file is None else str(file)
        self.remedy = remedy
        if exit_code is not None:
            self.exit_code = exit_code
        super().__init__(str(self))

    def __str__(self) -> str:
        where = f"{self.file}: " if self.file else ""
        remedy = f". {self.remedy}" if self.remedy else ""
        return " ".join(f"{where}{self.problem}{remedy}".split())


class UsageError(MsnmoError):
    """The command line is wrong."""

    exit_code = ExitCode.USAGE


class BadInputError(MsnmoError):
    """One input file cannot be processed; the other participants go on."""

    exit_code = ExitCode.BAD_DATA


class MissingInputError(MsnmoError):
    """What the program is to read is not there."""

    exit_code = ExitCode.INPUT_MISSING


#: What brings the content of a file that only points to it, by who keeps the content.
GET_CONTENT = {"git-annex": "datalad get", "git-lfs": "git lfs pull"}
_POINTER_BYTES = 32 * 1024  # files that point to their content are smaller


def how_to_get(keeper: str, file: Path) -> str:
    """Return the command that brings the content of a file, by who keeps it."""
    option = " --include" if keeper == "git-lfs" else ""
    return f"Run: {GET_CONTENT[keeper]}{option} {file}"


def keeper_of(content: bytes) -> str:
    """Return who keeps the content of a file that only points to it: a key of `GET_CONTENT`.

    Empty for the content itself.

    >>> keeper_of(b"/annex/objects/MD5E-s123--0123.nii.gz")
    'git-annex'
    """
    start = content[:1000].lstrip()[:200]
    if start.startswith(b"version https://git-lfs"):
        return "git-lfs"
    pointer = len(content) < _POINTER_BYTES and b"annex/objects" in start.split(b"\n")[0]
    return "git-annex" if pointer else ""


def out_of_memory(problem: str = "memory ran out") -> MsnmoError:
    """Return the error of a process that got too little memory."""
    return MsnmoError(
        problem,
        remedy="Give the run more memory, or let it do less at once (--nprocs, --mem-mb)",
        exit_code=ExitCode.TEMPORARY_FAILURE,
    )


#: What helps where the system says that a place cannot be used.
DISK_REMEDIES = {
    errno.ENOSPC: "Make room there, or choose a folder on another disk",
    errno.EDQUOT: "Make room within your quota, or choose a folder on another disk",
    errno.EROFS: "Choose a folder that can be written",
    errno.EACCES: "Get permission there, or choose another folder",
    errno.EPERM: "Get permission there, or choose another folder",
    errno.ENOENT: "Check that the folder is still there (removed, unmounted?) and run again",
    errno.ENOTDIR: "A file stands where a folder is needed: move it, or choose another folder",
    errno.EISDIR: "A folder stands where a file is needed: move it, or choose another folder",
    errno.ENAMETOOLONG: "Choose a folder with a shorter name",
    errno.EMFILE: "Raise the limit of open files (ulimit -n), or do less at once (--nprocs)",
    errno.EIO: "Check the disk",
    errno.ESTALE: "Check the network disk",
}
#: As other programs and libraries say it, who give no number.
_SAID = {os.strerror(code): code for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)}


def disk_error(error: BaseException) -> MsnmoError | None:
    """Return what a user can do about a disk, a permission or a missing folder.

    What the error was raised from counts too; None where it is of another kind.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in DISK_REMEDIES:
            return _disk_error(cause.errno, cause.filename)
        cause = cause.__cause__
    return None


def disk_error_in(trace: str) -> MsnmoError | None:
    """Return the same from the text of a trace, or of what a program said.

    >>> str(disk_error_in("OSError: [Errno 30] Read-only file system: '/out/x'"))
    'Read-only file system (/out/x). Choose a folder that can be written'
    """
    for code, _, file in reversed(re.findall(r"\[Errno (\d+)\] ([^:\n]*)(?:: '(.+)')?", trace)):
        if int(code) in DISK_REMEDIES:
            return _disk_error(int(code), file or None)
    return next((_disk_error(code, None) for text, code in _SAID.items() if text in trace), None)


def _disk_error(code: int, file: str | None) -> MsnmoError:
    problem = os.strerror(code) + (f" ({file})" if file else "")
    return MsnmoError(problem, remedy=DISK_REMEDIES[code], exit_code=ExitCode.IO_ERROR)
