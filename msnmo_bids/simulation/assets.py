"""What simulated scans are made of: heads and lesion shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msnmo_bids.simulation.anatomy import Head, load_heads
from msnmo_bids.simulation.lesion_frequency import with_frequency
from msnmo_bids.simulation.lesion_shapes import ShapeLibrary, load_shapes
from msnmo_bids.simulation.mni_head import mni_head


@dataclass(frozen=True)
class SimulationAssets:
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


def load_assets(
    anatomy: Path | None, shapes: Path | None = None, cache: Path | None = None
) -> SimulationAssets:
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
    SimulationAssets

    Raises
    ------
    MsnmoError
        If a folder or file is missing or holds something else.
    """
    heads = [mni_head()] if anatomy is None else load_heads(anatomy, cache)
    return assets_with(heads, shapes)


def assets_with(heads: list[Head], shapes: Path | None) -> SimulationAssets:
    """Add the library of lesion shapes (.npz), if there is one, to heads that were read.

    Raises
    ------
    BadInputError
        If the file is not such a library.
    """
    if shapes is None:
        return SimulationAssets(heads)
    library = load_shapes(shapes)
    if library.frequency is not None:
        heads = [with_frequency(head, library.frequency) for head in heads]
    return SimulationAssets(heads, library)
