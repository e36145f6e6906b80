"""Where messages go: the terminal, the log file of the run, and Nipype's loggers."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msnmo_bids.cli.progress import Progress

PACKAGE_LOGGER = "msnmo_bids"
NIPYPE_LOGGERS = (
    "nipype",
    "nipype.workflow",
    "nipype.interface",
    "nipype.utils",
    "nipype.filemanip",
)
FILE_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class ConsoleHandler(logging.StreamHandler):
    """Write messages to standard output, without breaking a progress line.

    Parameters
    ----------
    level : int
        Least level shown.
    """

    progress: Progress | None = None

    def __init__(self, level: int) -> None:
        super().__init__(sys.stdout)
        self.setLevel(level)

    def format(self, record: logging.LogRecord) -> str:
        """Return the message; warnings and errors say what they are."""
        prefix = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
        return prefix + record.getMessage()

    def emit(self, record: logging.LogRecord) -> None:
        """Clear the progress line, write the message, draw the line again."""
        progress = self.progress
        if progress is not None:
            progress.clear()
        super().emit(record)
        if progress is not None:
            progress.draw()


@contextmanager
def console(verbose: int) -> Iterator[ConsoleHandler]:
    """Show the program's messages at the terminal.

    Parameters
    ----------
    verbose : int
        0: what a user wants to know; 2 and above: everything.

    Yields
    ------
    ConsoleHandler
        To give it a progress display.
    """
    handler = ConsoleHandler(logging.DEBUG if verbose >= 2 else logging.INFO)
    logger = logging.getLogger(PACKAGE_LOGGER)
    before = (logger.level, logger.propagate)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def add_log_file(path: Path) -> logging.Handler:
    """Write the program's messages also to a file.

    Parameters
    ----------
    path : Path
        The log file; its folder is made when it is missing.

    Returns
    -------
    logging.Handler
        For :func:`close_log_file`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(FILE_FORMAT))
    handler.setLevel(logging.DEBUG)
    logging.getLogger(PACKAGE_LOGGER).addHandler(handler)
    return handler


def close_log_file(handler: logging.Handler) -> None:
    """Stop writing to a log file.

    Parameters
    ----------
    handler : logging.Handler
        From :func:`add_log_file`.
    """
    for name in (PACKAGE_LOGGER, *NIPYPE_LOGGERS):
        logging.getLogger(name).removeHandler(handler)
    handler.close()


def route_nipype(verbose: int) -> None:
    """Send Nipype's messages where ours go, if the user wants them.

    Parameters
    ----------
    verbose : int
        How often the user gave ``-v``.
    """
    import nipype  # noqa: F401 - it sets its loggers up when it is imported

    handlers = logging.getLogger(PACKAGE_LOGGER).handlers
    level = nipype_level(verbose)
    for name in NIPYPE_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = handlers
        logger.propagate = False
        logger.setLevel(level)


def nipype_level(verbose: int) -> int:
    """Return the level of Nipype's loggers, here and in its worker processes.

    Parameters
    ----------
    verbose : int
        How often the user gave ``-v``.

    Returns
    -------
    int
        Without ``-v`` nothing: what fails is said by this program, in one line a scan.
    """
    return (logging.CRITICAL, logging.INFO, logging.DEBUG)[min(verbose, 2)]


def to_toml(content: Mapping[str, Any]) -> str:
    """Return a TOML document of plain values and tables of plain values.

    Parameters
    ----------
    content : mapping
        Values may be texts, numbers, truth values, paths, lists of these, or mappings (tables).
        None has no place in TOML: such keys are written as comments.

    Returns
    -------
    str
        The document.
    """
    tables = {key: value for key, value in content.items() if isinstance(value, Mapping)}
    lines = [_line(key, value) for key, value in content.items() if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(_line(key, value) for key, value in table.items())]
    return "\n".join(lines).lstrip("\n") + "\n"


def _line(key: str, value: Any) -> str:
    return f"# {key} is not set" if value is None else f"{key} = {_toml_value(value)}"


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    escaped = "".join(_escape(character) for character in str(value))
    return f'"{escaped}"'


def _escape(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if ord(character) < 32 or ord(character) == 127:
        return f"\\u{ord(character):04x}"
    # Bytes of file names that are no UTF-8 are surrogates here, which TOML does not allow.
    return "?" if 0xD800 <= ord(character) <= 0xDFFF else character
