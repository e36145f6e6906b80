"""Run a program of the command line: messages, errors in one line, the right exit code."""

from __future__ import annotations

import argparse
import logging
import os
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from msnmo_bids.cli.logs import add_log_file, close_log_file, console
from msnmo_bids.cli.session import DISK_ERRORS, exit_code_for
from msnmo_bids.errors import ExitCode, MsnmoError

LOGGER = logging.getLogger(__name__)


def run_command(
    program: Callable[[argparse.Namespace], ExitCode],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
) -> int:
    """Run a program that writes one folder; every way in which it can end becomes an exit code.

    Parameters
    ----------
    program : callable
        Takes the options and returns an exit code.
    parser : argparse.ArgumentParser
        Gives ``output_dir`` and ``verbose`` among the options; its name of the program is that of
        the log, ``<name>.log`` in the output folder, and stands in its last line.
    argv : sequence of str or None
        Arguments; None: those of the process.

    Returns
    -------
    int
        Exit code. The last line of the log says the same in words.
    """
    try:
        options = parser.parse_args(argv)
    except SystemExit as end:
        return int(end.code or 0)
    name = parser.prog
    rank = os.environ.get("RANK", "0")  # of torchrun, whose first process speaks for all
    with console(options.verbose) as handler:
        if rank != "0":
            handler.setLevel(logging.WARNING)
        try:
            options.output_dir.mkdir(parents=True, exist_ok=True)
            suffix = "" if rank == "0" else f"-{rank}"
            log = add_log_file(options.output_dir / f"{name}{suffix}.log")
        except OSError as error:
            LOGGER.error("%s: cannot be written (%s)", options.output_dir, error.strerror)
            return int(ExitCode.CANNOT_CREATE_OUTPUT)
        try:
            code = _run(program, options, name)
            LOGGER.info("%s: %s", name, "SUCCESS" if code == ExitCode.OK else "FAILED")
        finally:
            close_log_file(log)
    return int(code)


def _run(
    program: Callable[[argparse.Namespace], ExitCode], options: argparse.Namespace, name: str
) -> ExitCode:
    try:
        return program(options)
    except MsnmoError as error:
        LOGGER.error("%s", error)
        LOGGER.debug("Trace of the error", exc_info=True)
        return exit_code_for(error)
    except KeyboardInterrupt as interrupt:
        LOGGER.error("Interrupted. Run the same command again: it goes on from here")
        return exit_code_for(interrupt)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            remedy = DISK_ERRORS[error.errno]
            LOGGER.error("%s: %s; %s and run again", error.filename, error.strerror, remedy)
            return exit_code_for(error)
        crash = _crash_file(options.output_dir, name)
        LOGGER.error(
            "Unexpected error: %s: %s. Please report it with the trace in %s",
            type(error).__name__, " ".join(str(error).split()) or "no message", crash,
        )  # fmt: skip
        return exit_code_for(error)


def _crash_file(folder: Path, name: str) -> Path:
    file = folder / f"crash-{name}.txt"
    file.write_text(traceback.format_exc(), encoding="utf-8", errors="replace")
    return file
