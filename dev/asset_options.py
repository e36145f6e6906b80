"""The options of the programs that simulate: which heads, which lesion shapes."""

from __future__ import annotations

import argparse
from pathlib import Path

from msnmo_bids.simulation.assets import SimulationAssets, load_assets


def add_asset_options(parser: argparse.ArgumentParser, *, needs_shapes: bool = False) -> None:
    """Add ``--anatomy``, ``--lesion-shapes`` and ``--cache`` to a program.

    With `needs_shapes` the program does not start without a library of lesion shapes.
    """
    shapes = "library of lesion shapes (.npz)"
    parser.add_argument("--anatomy", type=Path, required=True, help="folder of label maps")
    parser.add_argument("--lesion-shapes", type=Path, required=needs_shapes, help=shapes)
    parser.add_argument("--cache", type=Path, help="folder for prepared heads and scans")


def assets_of(options: argparse.Namespace) -> SimulationAssets:
    """Read what the options of `add_asset_options` name."""
    return load_assets(options.anatomy, options.lesion_shapes, options.cache)
