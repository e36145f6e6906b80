"""``msnmo-crossval``: cross-validate the joint model, its ablations and its baselines."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from msnmo_bids.cli.parser import Parser
from msnmo_bids.run.checks import check_folders
from msnmo_bids.run.crossval import CrossvalOptions, cross_validate
from msnmo_bids.run.session import guard

PROGRAM = "msnmo-crossval"
EPILOG = """\
examples:
  msnmo-crossval /data/bids /data/crossval
  msnmo-crossval /data/bids /data/crossval --models joint unet --epochs 50
  msnmo-crossval /data/bids /data/crossval --fold 3        # one job of five, side by side
  msnmo-crossval /data/bids /data/crossval --collect       # tables, figures and page

Run again after an interruption, the same command goes on where it stopped.
Research use only; not a medical device."""


def build_parser() -> Parser[CrossvalOptions]:
    """Return the parser of the command line."""
    return Parser(
        PROGRAM,
        CrossvalOptions,
        "Cross-validate the joint model, its ablations and published networks on a site's own "
        "data, and write the tables and figures of the paper for them.",
        EPILOG,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code, as :func:`msnmo_bids.cli.main.main`."""
    with guard(PROGRAM, argv) as session:
        options = build_parser().options(session.command)
        session.show(options.verbose)
        check_folders(options)
        session.open_log(options.output_dir)
        cross_validate(options)
    return int(session.exit_code)


if __name__ == "__main__":
    sys.exit(main())
