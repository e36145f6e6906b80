"""One simulated FLAIR scan: the chain from a head to an acquired image with its truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msnmo_bids.preprocessing.cube import array_to_cube, labels_to_cube
from msnmo_bids.simulation.acquisition import Protocol, degrade, random_protocol, sample_grid
from msnmo_bids.simulation.anatomy import DISTANCE_STEP, Head
from msnmo_bids.simulation.contrast import flair
from msnmo_bids.simulation.deformation import DeformationRange, deform
from msnmo_bids.simulation.lesion_shapes import ShapeLibrary
from msnmo_bids.simulation.lesions import LesionRecord, draw_load, place_lesions
from msnmo_bids.simulation.random_fields import smooth_noise


@dataclass(frozen=True)
class SimulatedScan:
    """An acquired scan and its truth, RAS order.

    Parameters
    ----------
    image : ndarray, (X, Y, Z), float32
        FLAIR with skull, relative to white matter.
    lesion_mask : ndarray, (X, Y, Z), uint8
        True lesions on the same grid.
    brain_distance : ndarray, (X, Y, Z), float32
        Distance to the brain's surface, positive outside (mm).
    affine : ndarray, (4, 4)
        Index to RAS mm.
    diagnosis : str
        ``"MS"``, ``"NMOSD"`` or ``"HC"``.
    protocol : Protocol
        How it was acquired.
    lesions : tuple of LesionRecord
        What was placed.
    head : str
        Which anatomy.
    """

    image: np.ndarray
    lesion_mask: np.ndarray
    brain_distance: np.ndarray
    affine: np.ndarray
    diagnosis: str
    protocol: Protocol
    lesions: tuple[LesionRecord, ...]
    head: str

    @property
    def zooms(self) -> np.ndarray:
        """Voxel size (mm), (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def brain_mask(self) -> np.ndarray:
        """The true brain mask, bool."""
        return self.brain_distance <= 0


def simulate_scan(
    head: Head,
    rng: np.random.Generator,
    *,
    diagnosis: str = "MS",
    load: float | None = None,
    protocol: Protocol | None = None,
    shapes: ShapeLibrary | None = None,
    limits: DeformationRange | None = None,
) -> SimulatedScan:
    """Simulate one scan.

    Parameters
    ----------
    head : Head
        Undeformed anatomy.
    rng : numpy.random.Generator
        Source of randomness; the same state gives the same scan.
    diagnosis : {"MS", "NMOSD", "HC"}, optional
        Whose lesions.
    load : float, optional
        Total lesion volume (ml); drawn from the prior by default.
    protocol : Protocol, optional
        Acquisition; drawn by default, independently of the diagnosis.
    shapes : ShapeLibrary, optional
        Real lesion shapes.
    limits : DeformationRange, optional
        Range of the deformation.

    Returns
    -------
    SimulatedScan
    """
    protocol = protocol or random_protocol(rng)
    load = draw_load(rng) if load is None else load
    moved = deform(head, rng, limits)
    lesions = place_lesions(moved, diagnosis, load, rng, shapes)
    ideal = flair(moved, lesions, rng)
    image, zooms = sample_grid(ideal, 1.0, protocol)
    share, _ = sample_grid(lesions.mask.astype(np.float32), 1.0, protocol)
    distance, _ = sample_grid(moved.to_surface.astype(np.float32) * DISTANCE_STEP, 1.0, protocol)
    affine = moved.affine @ np.diag([*zooms, 1.0])
    affine[:3, 3] += moved.affine[:3, :3] @ (zooms / 2 - 0.5)
    return SimulatedScan(
        image=degrade(image, protocol, rng),
        lesion_mask=(share >= 0.4).astype(np.uint8),
        brain_distance=distance,
        affine=affine,
        diagnosis=diagnosis,
        protocol=protocol,
        lesions=tuple(lesions.records),
        head=head.name,
    )


def imperfect_brain_mask(scan: SimulatedScan, rng: np.random.Generator) -> np.ndarray:
    """Make a brain mask with the errors of skull stripping: rims, leaks, and cut cortex.

    Parameters
    ----------
    scan : SimulatedScan
        The scan.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray, (X, Y, Z), bool
    """
    shape = scan.image.shape
    scale = 25.0 / float(scan.zooms.min())
    offset = rng.uniform(-1.0, 2.0) + rng.uniform(0.0, 1.2) * smooth_noise(shape, scale, rng)
    if rng.random() < 0.55:
        leak = np.clip(smooth_noise(shape, scale, rng) - rng.uniform(0.6, 1.4), 0, None)
        offset = offset + rng.uniform(2.0, 9.0) * leak
    if rng.random() < 0.3:
        offset = offset + rng.uniform(10.0, 30.0) * _skull_base(scan, rng)
    return scan.brain_distance <= offset


def _skull_base(scan: SimulatedScan, rng: np.random.Generator) -> np.ndarray:
    """Where a large leak may lie: orbits and skull base, low and in front; (X, Y, Z), 0 to 1."""
    shape = scan.image.shape
    levels = np.flatnonzero(scan.brain_mask.any(axis=(0, 1)))
    rows = np.flatnonzero(scan.brain_mask.any(axis=(0, 2)))
    if not levels.size:
        return np.zeros(shape, np.float32)
    low = (np.arange(shape[2]) - levels[0]) / max(1, levels[-1] - levels[0])
    front = (np.arange(shape[1]) - rows[0]) / max(1, rows[-1] - rows[0])
    place = np.clip(2 - 4 * low, 0, 1)[None, None] * np.clip(4 * front - 1.2, 0, 1)[None, :, None]
    noise = smooth_noise(shape, 18.0 / float(scan.zooms.min()), rng)
    return place * np.clip(noise + rng.uniform(-0.5, 0.5), 0, 1)


def training_cube(
    scan: SimulatedScan, rng: np.random.Generator, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Prepare a simulated scan as the app prepares a real one.

    Parameters
    ----------
    scan : SimulatedScan
        The scan.
    rng : numpy.random.Generator
        Source of randomness (errors of skull stripping, margin).
    shape : tuple of int
        Shape of the cube.

    Returns
    -------
    image : ndarray, ``shape``, float32
        z-scores, background 0.
    lesions : ndarray, ``shape``, uint8
        Lesion mask, nearest neighbour.
    """
    mask = imperfect_brain_mask(scan, rng)
    cube, transform = array_to_cube(
        scan.image * mask, mask, tuple(scan.zooms), shape, float(rng.uniform(3.0, 8.0))
    )
    return cube, labels_to_cube(scan.lesion_mask * mask, transform)
