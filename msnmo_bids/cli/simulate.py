"""``msnmo-simulate``: write a BIDS data set of simulated FLAIR scans."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from msnmo_bids.errors import ExitCode, MsnmoError, UsageError
from msnmo_bids.version import get_version


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="msnmo-simulate",
        description="Write a BIDS data set of simulated T2-FLAIR scans with known lesions.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="new or empty folder")
    parser.add_argument(
        "--participants", type=int, default=2, metavar="N", help="number of people (default: 2)"
    )
    parser.add_argument(
        "--anatomy",
        type=Path,
        metavar="DIR",
        help="folder of whole-head label maps with FreeSurfer labels (default: one head, built "
        "from the MNI tissue maps)",
    )
    parser.add_argument(
        "--lesion-shapes", type=Path, metavar="FILE", help="library of real lesion shapes (.npz)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument("--version", action="version", version=f"msnmo {get_version()}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit code.
    """
    options = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if options.participants < 1:
            raise UsageError("--participants must be at least 1")
        if options.out.exists() and any(options.out.iterdir()):
            raise UsageError("the folder is not empty", file=options.out, remedy="Name a new one")
        _simulate(options)
    except MsnmoError as error:
        logging.error("%s", error)
        return int(error.exit_code)
    except OSError as error:
        logging.error("%s", error)
        return int(ExitCode.CANNOT_CREATE_OUTPUT)
    return int(ExitCode.OK)


def _simulate(options: argparse.Namespace) -> None:
    from msnmo_bids.simulation.anatomy import whole_heads
    from msnmo_bids.simulation.dataset import write_dataset
    from msnmo_bids.simulation.lesion_shapes import load_shapes
    from msnmo_bids.simulation.mni_head import mni_head

    if options.anatomy is None:
        heads = [mni_head()]
    else:
        heads = whole_heads(options.anatomy, options.participants)
    shapes = None if options.lesion_shapes is None else load_shapes(options.lesion_shapes)
    write_dataset(options.out, heads, options.participants, seed=options.seed, shapes=shapes)


if __name__ == "__main__":
    sys.exit(main())
