"""Images on which no diagnosis may be named: other contrast, tumour, infarct, motion, noise.

Made of simulated scans, to test that the app withholds. They look like their models only as far as
that test needs; nothing is trained on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import ndimage
from scipy.special import expit

from msnmo_bids.simulation.acquisition import degrade, sample_grid
from msnmo_bids.simulation.anatomy import DISTANCE_STEP, Head, Tissue
from msnmo_bids.simulation.contrast import flair
from msnmo_bids.simulation.random_fields import smooth_noise
from msnmo_bids.simulation.sample import SimulatedScan

#: Mean intensity of each tissue on a T1-weighted image, relative to white matter.
_T1W = {
    Tissue.AIR: 0.01, Tissue.WHITE_MATTER: 1.0, Tissue.CORTEX: 0.68, Tissue.DEEP_GREY: 0.8,
    Tissue.LATERAL_VENTRICLE: 0.25, Tissue.THIRD_VENTRICLE: 0.28, Tissue.FOURTH_VENTRICLE: 0.28,
    Tissue.CSF: 0.3, Tissue.CEREBELLAR_WHITE: 0.97, Tissue.CEREBELLAR_CORTEX: 0.7,
    Tissue.BRAINSTEM: 0.93, Tissue.CHOROID_PLEXUS: 0.45, Tissue.SOFT_TISSUE: 0.6,
    Tissue.SCALP: 1.5, Tissue.BONE: 0.1, Tissue.MARROW: 1.1, Tissue.EYE: 0.3, Tissue.VESSEL: 0.3,
}  # fmt: skip


def t1_weighted(scan: SimulatedScan, rng: np.random.Generator) -> SimulatedScan:
    """Return the head of a scan as a T1-weighted image; lesions are a little dark."""
    head = scan.head
    ideal = np.array([_T1W[tissue] for tissue in Tissue], dtype=np.float32)[head.tissue]
    ideal *= 1 - 0.25 * np.clip(scan.lesions.profile, 0, 1)
    ideal += ideal * smooth_noise(ideal.shape, 3.5 / head.spacing, rng) * 0.03
    return _acquired(scan, ndimage.gaussian_filter(ideal, 0.6 / head.spacing), rng)


def tumour(scan: SimulatedScan, rng: np.random.Generator) -> SimulatedScan:
    """Return the scan of a head with a glioma-like mass: core, rim, oedema and mass effect.

    The mass is 35 to 60 ml, the oedema reaches 8 to 15 mm beyond it.
    """
    head = scan.head
    centre = _deep_white_matter(head, rng)
    radius = (3 * rng.uniform(35e3, 60e3) / (4 * np.pi)) ** (1 / 3)
    away, outwards = _from_centre(head, centre)
    # Tissue is pushed outwards: what is seen at a place was nearer to the centre.
    push = 0.45 * radius * np.exp(-((away / (2 * radius)) ** 2))
    source = np.indices(away.shape, dtype=np.float32) - outwards * push / head.spacing
    image = ndimage.map_coordinates(_flair(scan, rng), source, order=1, mode="nearest")
    edge = away + 0.25 * radius * smooth_noise(away.shape, 12.0 / head.spacing, rng)
    brain = ndimage.map_coordinates((head.to_surface < 0).astype(np.float32), source, order=1)
    oedema = np.clip(1.2 - (edge - radius) / rng.uniform(8, 15), 0, 1) * (brain > 0.5)
    image += oedema * (rng.uniform(1.6, 1.9) - image)
    inside = expit(radius - edge)
    image += inside * (rng.uniform(1.3, 1.6) - image)
    core = expit(0.6 * radius - edge)
    image += core * (rng.uniform(0.4, 0.8) - image)
    return _acquired(scan, image.astype(np.float32), rng)


def infarct(scan: SimulatedScan, rng: np.random.Generator) -> SimulatedScan:
    """Return the scan of a head with a large infarct: a wedge of cortex and white matter, bright.

    Its territory is that of a middle cerebral artery, 80 to 200 ml.
    """
    head = scan.head
    image = _flair(scan, rng)
    side = rng.choice((-1.0, 1.0))
    box = _brain_box(head)
    centre = box.mean(axis=0) + (box[1] - box[0]) * (side * 0.38, rng.uniform(-0.08, 0.08), 0.05)
    away, _ = _from_centre(head, centre)
    radius = (3 * rng.uniform(120e3, 250e3) / (4 * np.pi)) ** (1 / 3)
    edge = away + 0.15 * radius * smooth_noise(away.shape, 15.0 / head.spacing, rng)
    grey = (head.tissue == Tissue.WHITE_MATTER) | (head.tissue == Tissue.CORTEX)
    share = ndimage.gaussian_filter((grey & (edge < radius)).astype(np.float32), 1 / head.spacing)
    image += share * (rng.uniform(1.55, 1.9) * (1 + 0.05 * image) - image)
    return _acquired(scan, image, rng)


def heavy_motion(scan: SimulatedScan, rng: np.random.Generator) -> SimulatedScan:
    """Return the scan of a head that nodded all the time, by 3 to 6 voxels from line to line."""
    image = _acquired(scan, _flair(scan, rng), rng).image
    axis = next(axis for axis in (1, 0) if axis != scan.protocol.slice_axis)
    lines = np.fft.fftfreq(image.shape[axis])
    order = np.arange(len(lines)) / rng.uniform(3.0, 9.0)
    shift = rng.uniform(3.0, 6.0) * np.sin(2 * np.pi * order) + rng.normal(0.0, 1.5, len(lines))
    turn = np.expand_dims(np.exp(-2j * np.pi * lines * shift), [a for a in range(3) if a != axis])
    moved = np.fft.ifft(np.fft.fft(image, axis=axis) * turn, axis=axis)
    return replace(scan, image=np.abs(moved).astype(np.float32))


def pure_noise(scan: SimulatedScan, rng: np.random.Generator) -> SimulatedScan:
    """Return an image of noise on the grid of a scan."""
    noise = rng.standard_normal((2, *scan.image.shape), dtype=np.float32)
    return replace(scan, image=np.hypot(*noise))


#: How each kind of image is made of a simulated scan.
UNSUITABLE: dict[str, Callable[[SimulatedScan, np.random.Generator], SimulatedScan]] = {
    "t1w": t1_weighted,
    "tumour": tumour,
    "infarct": infarct,
    "motion": heavy_motion,
    "noise": pure_noise,
}


def _flair(scan: SimulatedScan, rng: np.random.Generator) -> np.ndarray:
    return flair(scan.head, scan.lesions, rng, free=False)[0]


def _acquired(scan: SimulatedScan, ideal: np.ndarray, rng: np.random.Generator) -> SimulatedScan:
    image, _ = sample_grid(ideal, scan.head.spacing, scan.protocol)
    return replace(scan, image=degrade(np.maximum(image, 0) * scan.bias, scan.protocol, rng))


def _brain_box(head: Head) -> np.ndarray:
    """Return the first and the last voxel of the brain along each axis, (2, 3)."""
    found = np.argwhere(head.to_surface <= 0)
    return np.stack([found.min(axis=0), found.max(axis=0)]).astype(float)


def _deep_white_matter(head: Head, rng: np.random.Generator) -> np.ndarray:
    """Return a voxel of supratentorial white matter, 18 mm or more below the surface."""
    deep = (head.tissue == Tissue.WHITE_MATTER) & (head.to_surface < -18 / DISTANCE_STEP)
    places = np.argwhere(deep if deep.any() else head.tissue == Tissue.WHITE_MATTER)
    return places[rng.integers(len(places))].astype(float)


def _from_centre(head: Head, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each voxel's distance from a place (mm), and the unit vector away from it."""
    offset = np.indices(head.tissue.shape, dtype=np.float32) - centre[:, None, None, None].astype(
        np.float32
    )
    length = np.sqrt((offset**2).sum(axis=0))
    return length * head.spacing, offset / np.maximum(length, 1e-3)
