"""Errors that a user can act on, and the exit codes that tell them apart."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """Exit codes of the draft BIDS execution specification."""

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


class MsnmoError(Exception):
    """An error with a file, a problem and a remedy, printed as one line.

    Parameters
    ----------
    problem : str
        What is wrong, without a full stop.
    file : str or Path, optional
        The file that it is about.
    remedy : str, optional
        What the user can do.
    exit_code : ExitCode, optional
        Exit code of a run that stops here.
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

    def __reduce__(self) -> tuple:
        """Survive the pickling between worker processes."""
        state = {"file": self.file, "remedy": self.remedy, "exit_code": self.exit_code}
        return (_rebuild, (type(self), self.problem, state))


def _rebuild(kind: type[MsnmoError], problem: str, state: dict) -> MsnmoError:
    return kind(problem, **state)


class UsageError(MsnmoError):
    """The command line is wrong."""

    exit_code = ExitCode.USAGE


class BadInputError(MsnmoError):
    """One input file cannot be processed; the other participants go on."""

    exit_code = ExitCode.BAD_DATA
