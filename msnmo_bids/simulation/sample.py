"""One simulated FLAIR scan: the chain from a head to an acquired image with its truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from msnmo_bids.preprocessing.cube import CubeTransform, array_to_cube, labels_to_cube
from msnmo_bids.simulation.anatomy import DISTANCE_STEP, Head
from msnmo_bids.simulation.assets import ShapeLibrary
from msnmo_bids.simulation.deformation import aged, deform, resize_nearest, smooth_noise
from msnmo_bids.simulation.imaging import (
    Protocol,
    bias_field,
    degrade,
    flair,
    random_protocol,
    sample_grid,
)
from msnmo_bids.simulation.lesion_placement import draw_load, follow_up, place_lesions
from msnmo_bids.simulation.stamping import RIM, LesionMap

#: What a lesion must add to the image for a rater to see it, relative to white matter.
_VISIBLE = 0.12
#: Share of the (logarithm of the) bias field that its correction takes away: least and most.
_BIAS_CORRECTED = (0.3, 1.0)


@dataclass(frozen=True)
class SimulatedScan:
    """An acquired scan and its truth: arrays (X, Y, Z), RAS order; `affine` is index to RAS mm.

    Parameters
    ----------
    image, bias : ndarray of float32
        FLAIR with skull, relative to white matter; the bias field in it, a factor.
    contrast : ndarray of float32
        What the lesions add to the image before noise and artefacts, bias field included.
    lesion_mask : ndarray of uint8
        True lesions on the same grid, as far as they can be seen.
    brain_distance : ndarray of float32
        Distance to the brain's surface, positive outside (mm).
    lesions, head : LesionMap, Head
        What was placed, and the deformed head, on whose grid it is.
    load : float
        Total lesion volume that was asked for (ml).
    """

    image: np.ndarray
    bias: np.ndarray
    contrast: np.ndarray
    lesion_mask: np.ndarray
    brain_distance: np.ndarray
    affine: np.ndarray
    diagnosis: str
    protocol: Protocol
    lesions: LesionMap
    head: Head
    load: float

    @property
    def zooms(self) -> np.ndarray:
        """Voxel size (mm), (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def brain_mask(self) -> np.ndarray:
        """The true brain mask, bool."""
        return self.brain_distance <= 0

    @cached_property
    def tissue(self) -> np.ndarray:
        """Values of `Tissue` at the voxels' centres, (X, Y, Z), uint8."""
        return resize_nearest(self.head.tissue, self.image.shape)

    @cached_property
    def lesion_labels(self) -> np.ndarray:
        """Number of the lesion of each voxel of the mask, (X, Y, Z), uint16.

        A voxel of a thick slice that is lesion by its share, though not at its centre, belongs to
        the nearest lesion.
        """
        ideal = self.lesions.labels
        found = self.lesion_mask > 0
        labels = np.where(found, resize_nearest(ideal, self.image.shape), 0)
        missing = np.argwhere(found & (labels == 0))
        lesions = np.argwhere(ideal)
        if len(missing) and len(lesions):
            scale = np.array(ideal.shape) / self.image.shape
            _, nearest = cKDTree(lesions).query((missing + 0.5) * scale - 0.5)
            labels[tuple(missing.T)] = ideal[tuple(lesions[nearest].T)]
        return labels.astype(np.uint16)


def simulate_scan(
    head: Head, rng: np.random.Generator, *, protocol: Protocol | None = None, **how: Any
) -> SimulatedScan:
    """Simulate one scan, the only visit of `simulate_visits`, whose further options it takes."""
    protocols = None if protocol is None else (protocol,)
    return next(simulate_visits(head, rng, protocols=protocols, **how))


def simulate_visits(
    head: Head,
    rng: np.random.Generator,
    *,
    sessions: int = 1,
    diagnosis: str = "MS",
    load: float | None = None,
    protocols: Sequence[Protocol] | None = None,
    shapes: ShapeLibrary | None = None,
    typicality: float = 1.0,
) -> Iterator[SimulatedScan]:
    """Simulate the visits of one person in an undeformed head: lesions change, contrast does not.

    Parameters
    ----------
    sessions : int, optional
        Number of visits.
    diagnosis : {"MS", "NMOSD", "SVD", "HC"}, optional
        Whose lesions; SVD is age-related small-vessel disease, in a head with wide ventricles.
    load : float, optional
        Total lesion volume at the first visit (ml); drawn from the prior of MS by default, whatever
        the diagnosis.
    protocols : sequence of Protocol, optional
        Of each visit, taken in turn; drawn by default, independently of the diagnosis.
    typicality : float, optional
        Share of the load that follows the disease's own pattern; of no effect for SVD.
    """
    drawn = [
        protocols[k % len(protocols)] if protocols else random_protocol(rng)
        for k in range(sessions)
    ]
    load = draw_load(rng) if load is None else load
    moved = deform(head, rng)
    # Drawn before the lesions, so that scans with other lesions differ in nothing else.
    contrast, acquisition = (int(rng.integers(2**63)) for _ in range(2))
    if diagnosis == "SVD":
        moved = aged(moved, rng)
    lesions = place_lesions(moved, diagnosis, load, rng, shapes, typicality=typicality)
    for visit, protocol in enumerate(drawn):
        if visit:
            lesions = follow_up(moved, lesions, diagnosis, rng, shapes)
        ideal, added = flair(moved, lesions, np.random.default_rng(contrast))
        noise = np.random.default_rng((acquisition, visit))
        yield _acquire(ideal, added, moved, lesions, protocol, diagnosis, load, noise)


def _acquire(
    ideal: np.ndarray,
    contrast: np.ndarray,
    moved: Head,
    lesions: LesionMap,
    protocol: Protocol,
    diagnosis: str,
    load: float,
    rng: np.random.Generator,
) -> SimulatedScan:
    spacing = moved.spacing
    image, zooms = sample_grid(ideal, spacing, protocol)
    share, _ = sample_grid(lesions.profile, spacing, protocol)
    seen, _ = sample_grid(contrast, spacing, protocol)
    surface = moved.to_surface.astype(np.float32) * DISTANCE_STEP
    distance, _ = sample_grid(surface, spacing, protocol)
    bias = bias_field(image.shape, protocol, rng)
    factor = zooms / spacing
    affine = moved.affine @ np.diag([*factor, 1.0])
    affine[:3, 3] += moved.affine[:3, :3] @ (factor / 2 - 0.5)
    return SimulatedScan(
        image=degrade(image * bias, protocol, rng),
        bias=bias,
        contrast=seen * bias,
        lesion_mask=((share >= RIM) & (seen >= _VISIBLE)).astype(np.uint8),
        brain_distance=distance,
        affine=affine,
        diagnosis=diagnosis,
        protocol=protocol,
        lesions=lesions,
        head=moved,
        load=load,
    )


def imperfect_brain_mask(scan: SimulatedScan, rng: np.random.Generator) -> np.ndarray:
    """Make a brain mask, (X, Y, Z) bool, with errors of skull stripping: leaks, cut cortex."""
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


def prepared_scan(
    scan: SimulatedScan, rng: np.random.Generator, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray, CubeTransform]:
    """Prepare a simulated scan as the app prepares a real one, for a cube of a shape.

    From `rng` come errors of skull stripping, what is left of the bias field, and the margin. The
    results are the cube (float32 z-scores, background 0), the brain mask with errors on the scan's
    grid, (X, Y, Z) bool, and where the cube lies on that grid.
    """
    mask = imperfect_brain_mask(scan, rng)
    margin = float(rng.uniform(3.0, 8.0))
    corrected = scan.image * mask / scan.bias ** np.float32(rng.uniform(*_BIAS_CORRECTED))
    cube, transform = array_to_cube(corrected, mask, tuple(scan.zooms), shape, margin)
    return cube, mask, transform


def training_cube(
    scan: SimulatedScan, rng: np.random.Generator, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Prepare a scan as `prepared_scan`: image and lesion mask (uint8, nearest) on the cube."""
    cube, mask, transform = prepared_scan(scan, rng, shape)
    return cube, labels_to_cube(scan.lesion_mask * mask, transform)
