"""``msnmo-train``: train the joint model on a site's own data, to weights that the app uses."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from msnmo_bids.cli.parser import Parser
from msnmo_bids.run.checks import check_folders
from msnmo_bids.run.session import guard
from msnmo_bids.run.training import TrainOptions, train

PROGRAM = "msnmo-train"
EPILOG = """\
examples:
  msnmo-train /data/bids /data/training
  msnmo-train /data/bids /data/training --data /data/other --simulated-share 0.5
  torchrun --nproc-per-node 4 -m msnmo_bids.cli.train /data/bids /data/training
  msnmo /data/bids /data/out participant --weights /data/training/msnmo-joint.safetensors

Stopped by Ctrl-C or SIGTERM it saves; the same command goes on where it stopped.
Research use only; not a medical device."""


def build_parser() -> Parser[TrainOptions]:
    """Return the parser of the command line."""
    return Parser(
        PROGRAM,
        TrainOptions,
        "Train the joint model on a site's own BIDS data: FLAIR, lesion masks, and diagnoses in "
        "participants.tsv. Scans that have only one of them train what they can.",
        EPILOG,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code, as :func:`msnmo_bids.cli.main.main`."""
    with guard(PROGRAM, argv) as session:
        options = build_parser().options(session.command)
        session.show(options.verbose)
        check_folders(options)
        session.open_log(options.output_dir)
        train(options)
    return int(session.exit_code)


if __name__ == "__main__":
    sys.exit(main())
