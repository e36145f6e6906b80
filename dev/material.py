"""The options of the programs that simulate: which heads, which lesion shapes."""

from __future__ import annotations

import argparse
from pathlib import Path

from msnmo_bids.simulation.material import Material, load_material


def add_material_options(parser: argparse.ArgumentParser, *, needs_shapes: bool = False) -> None:
    """Add ``--anatomy``, ``--lesion-shapes`` and ``--cache`` to a program.

    With `needs_shapes` the program does not start without a library of lesion shapes.
    """
    shapes = "library of lesion shapes (.npz)"
    parser.add_argument("--anatomy", type=Path, required=True, help="folder of label maps")
    parser.add_argument("--lesion-shapes", type=Path, required=needs_shapes, help=shapes)
    parser.add_argument("--cache", type=Path, help="folder for prepared heads and scans")


def material_of(options: argparse.Namespace) -> Material:
    """Read what the options of `add_material_options` name."""
    return load_material(options.anatomy, options.lesion_shapes, options.cache)
