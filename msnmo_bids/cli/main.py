"""``msnmo``, the BIDS App: parse, run a level, and end with one line and the right exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from msnmo_bids.cli.parser import Parser
from msnmo_bids.errors import ExitCode
from msnmo_bids.run.options import LEVELS, AppOptions
from msnmo_bids.run.session import guard

PROGRAM = "msnmo"
EPILOG = """\
examples:
  run.py /data/bids /data/bids/derivatives/msnmo participant
  run.py /data/bids /data/bids/derivatives/msnmo participant --participant-label 01 02
  run.py /data/bids /data/bids/derivatives/msnmo group"""


def build_parser() -> Parser[AppOptions]:
    """Return the parser of the command line."""
    return Parser(
        PROGRAM,
        AppOptions,
        "Lesion segmentation and MS/NMOSD pattern scores from T2-FLAIR (a BIDS App).",
        EPILOG,
    )


def parse_args(words: Sequence[str]) -> AppOptions:
    """Parse the command line.

    Raises
    ------
    SystemExit
        With 64 for wrong usage and 17 for an unknown analysis level; 0 after ``--help`` and
        ``--version``.
    """
    parser = build_parser()
    options = parser.options(words)
    level = options.analysis_level
    if level not in LEVELS:
        misplaced = {str(options.bids_dir), str(options.output_dir)} & {*LEVELS}
        if misplaced:
            parser.error(
                "the arguments are in the wrong order: input, output and level, as in "
                f"/data/bids /data/out {misplaced.pop()}"
            )
        parser.stop(
            f"unknown analysis level '{level}' (choose from {', '.join(LEVELS)})",
            ExitCode.UNKNOWN_LEVEL,
        )
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; the last line of the log says the same in words.

    `argv` are the arguments without the program's name; those of the process when not given.
    """
    with guard(PROGRAM, argv) as session:
        session.ok = session.failed = 0
        options = parse_args(session.command)
        session.show(options.verbose)
        if options.analysis_level == "group":
            from msnmo_bids.run.group import run_group

            run_group(options, session)
        else:
            from msnmo_bids.run.execute import run_participant

            run_participant(options, session)
    return int(session.exit_code)


if __name__ == "__main__":
    sys.exit(main())
