"""A pool of simulated brains, made ahead and refreshed between the training steps.

On few cores a simulator that runs beside the trainer slows both down. So they alternate: one new
brain replaces the oldest one every few steps, and each brain is used for several crops meanwhile.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from msnmo_bids.labelled.samples import Sample
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.simulation.lesion_placement import draw_load
from msnmo_bids.simulation.sample import simulate_scan, training_cube

#: Share of brains without lesions: more than among people with MS, for the sake of specificity.
LESION_FREE_SHARE = 0.1
#: Name of the class of healthy controls.
HEALTHY = "HC"
_BRAIN_LENGTH = 170.0  # mm


def working_spacing(shape: tuple[int, int, int]) -> float:
    """Return the voxel size (mm) of the heads that samples for a cube are simulated on.

    A little finer than the cube's voxels are on a brain of ordinary length, and not under 1 mm:
    more would be lost again when the brain is resized to the cube.

    Examples
    --------
    >>> [working_spacing((side,) * 3) for side in (96, 112, 160)]
    [1.5, 1.25, 1.0]
    """
    return max(1.0, math.floor(4 * 0.85 * _BRAIN_LENGTH / max(shape)) / 4)


class BrainPool:
    """Simulated brains, the oldest one replaced by `refresh`.

    Parameters
    ----------
    assets : SimulationAssets
        Heads and lesion shapes.
    shape : tuple of int
        Shape of the cubes.
    size : int
        Number of brains kept.
    classes : tuple of str
        Names of the classes, MS and NMOSD among them. Where `HEALTHY` is one too, a brain without
        lesions is of this class.
    nmosd_share : float
        Share of NMOSD-like brains. Both classes draw their total load from the same
        distribution, so that the volume alone does not tell them apart.
    lesion_free_share : float, optional
        Share of brains without lesions.
    """

    def __init__(
        self,
        assets: SimulationAssets,
        shape: tuple[int, int, int],
        *,
        size: int,
        classes: tuple[str, ...],
        nmosd_share: float,
        lesion_free_share: float = LESION_FREE_SHARE,
    ) -> None:
        spacing = working_spacing(shape)
        self.heads = [head.resampled(spacing) for head in assets.heads]
        self.shapes, self.shape = assets.shapes, shape
        self.classes, self.nmosd_share = classes, nmosd_share
        self.lesion_free_share = lesion_free_share
        self.size = size
        self.brains: deque[Sample] = deque(maxlen=size)

    def refresh(self, rng: np.random.Generator) -> None:
        """Simulate one brain and drop the oldest when the pool is full."""
        diagnosis = "NMOSD" if rng.random() < self.nmosd_share else "MS"
        head = self.heads[rng.integers(len(self.heads))]
        load = draw_load(rng, without=self.lesion_free_share)
        if not load and HEALTHY in self.classes:
            diagnosis = HEALTHY
        scan = simulate_scan(head, rng, diagnosis=diagnosis, load=load, shapes=self.shapes)
        image, lesions = training_cube(scan, rng, self.shape)
        self.brains.append(Sample(image.astype(np.float16), lesions, self.classes.index(diagnosis)))

    def draw(self, rng: np.random.Generator, diagnosis: int | None = None) -> Sample:
        """Return one brain of the pool.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of randomness.
        diagnosis : int, optional
            Only brains of this class, those with a lesion where there are any; of all classes
            where the pool holds none.

        Returns
        -------
        Sample
        """
        brains = list(self.brains)
        if diagnosis is not None:
            own = [brain for brain in brains if brain.diagnosis == diagnosis]
            brains = [brain for brain in own if np.any(brain.lesions)] or own or brains
        return brains[rng.integers(len(brains))]
