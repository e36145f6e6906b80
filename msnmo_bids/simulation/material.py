"""What simulated scans are made of: heads and lesion shapes."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from msnmo_bids.simulation.anatomy import Head, load_heads
from msnmo_bids.simulation.lesion_frequency import with_frequency
from msnmo_bids.simulation.lesion_shapes import ShapeLibrary, load_shapes
from msnmo_bids.simulation.mni_head import mni_head


@dataclass(frozen=True)
class Material:
    """What simulated scans are made of.

    Parameters
    ----------
    heads : list of Head
        Anatomies to deform; with a library they know how often its lesions lie at a place.
    shapes : ShapeLibrary or None
        Real lesion shapes; None: ovoids.
    """

    heads: list[Head]
    shapes: ShapeLibrary | None = None


def load_material(
    anatomy: Path | None, shapes: Path | None = None, cache: Path | None = None
) -> Material:
    """Read heads and lesion shapes.

    Parameters
    ----------
    anatomy : Path or None
        Folder of whole-head label maps; None: the one head built from the MNI maps.
    shapes : Path or None
        Library of lesion shapes (.npz); None: ovoids.
    cache : Path, optional
        Folder for prepared heads.

    Returns
    -------
    Material

    Raises
    ------
    MsnmoError
        If a folder or file is missing or holds something else.
    """
    heads = [mni_head()] if anatomy is None else load_heads(anatomy, cache)
    return material_with(heads, shapes)


def material_with(heads: list[Head], shapes: Path | None) -> Material:
    """Add the library of lesion shapes (.npz), if there is one, to heads that were read.

    Raises
    ------
    BadInputError
        If the file is no such library.
    """
    if shapes is None:
        return Material(heads)
    library = load_shapes(shapes)
    if library.frequency is not None:
        heads = [with_frequency(head, library.frequency) for head in heads]
    return Material(heads, library)


def add_material_options(parser: argparse.ArgumentParser, *, needs_shapes: bool = False) -> None:
    """Add ``--anatomy``, ``--lesion-shapes`` and ``--cache`` to a developer's program.

    With `needs_shapes` the program does not start without a library of lesion shapes.
    """
    shapes = "library of lesion shapes (.npz)"
    parser.add_argument("--anatomy", type=Path, required=True, help="folder of label maps")
    parser.add_argument("--lesion-shapes", type=Path, required=needs_shapes, help=shapes)
    parser.add_argument("--cache", type=Path, help="folder for prepared heads and scans")


def material_of(options: argparse.Namespace) -> Material:
    """Read what the options of `add_material_options` name."""
    return load_material(options.anatomy, options.lesion_shapes, options.cache)
