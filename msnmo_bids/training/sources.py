"""Where the samples of a training come from: prepared scans, simulated brains, or both mixed.

All randomness is a function of the seed, the step and the process: a training that was killed goes
on as if nothing had happened, without any state of a generator in its checkpoint.

On few cores a simulator that runs beside the trainer slows both down. So they alternate: one new
brain replaces the oldest one of a pool every few steps, and each is used for several crops.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Protocol, overload

import numpy as np

from msnmo_bids.labelled.samples import Sample
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.simulation.lesion_placement import draw_load
from msnmo_bids.simulation.sample import simulate_scan, training_cube
from msnmo_bids.training.prepared import PreparedScan

#: Share of brains without lesions: more than among people with MS, for the sake of specificity.
LESION_FREE_SHARE = 0.1
#: Name of the class of healthy controls.
HEALTHY = "HC"
_BRAIN_LENGTH = 170.0  # mm


class Stream(IntEnum):
    """What random numbers are for: each purpose has its own."""

    ADVANCE = 0
    FILL = 1
    SAMPLE = 2
    NETWORK = 3
    ORDER = 4


def generator(seed: int, stream: Stream, *position: int) -> np.random.Generator:
    """Return the generator of a purpose at a position: step, rank of the process, sample."""
    # The length is part of the entropy, because SeedSequence takes (1,) and (1, 0) for the same.
    return np.random.default_rng((seed, int(stream), len(position), *position))


class SampleSource(Protocol):
    """What a training draws its samples from.

    The trainer calls `rebuild` once before its first step, which is not step 0 after a resume, then
    for each step `advance` and as many `draw` as the step has samples.
    """

    def rebuild(self, step: int) -> None:
        """Bring about the state that the steps before `step` leave, from the seed alone."""

    def advance(self, step: int, rng: np.random.Generator) -> None:
        """Prepare for a step; `rng` is ``generator(seed, Stream.ADVANCE, step, rank)``."""

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return the next sample of the step; `rng` belongs to this sample alone."""


class EpochSource:
    """Scans in an order shuffled anew for every epoch; each is shown once an epoch.

    Several processes share one order, so that the samples of a step are the same for any number of
    them. One process draws `samples_per_step` for a step.

    Raises
    ------
    ValueError
        If there are no samples.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        samples_per_step: int,
        *,
        seed: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if not len(samples):
            raise ValueError("there are no training samples")
        self.samples, self.samples_per_step, self.seed = samples, samples_per_step, seed
        self.rank, self.processes = rank, processes
        self._next = 0
        self._epoch, self._order = -1, np.arange(0)

    def __len__(self) -> int:
        """Return the number of scans: the length of an epoch."""
        return len(self.samples)

    def rebuild(self, step: int) -> None:
        """Need nothing: the step decides on the position."""

    def advance(self, step: int, rng: np.random.Generator) -> None:
        """Go to the position of a step."""
        self._next = step * self.samples_per_step

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return the next scan of the epoch's order."""
        epoch, index = divmod(self._next * self.processes + self.rank, len(self.samples))
        self._next += 1
        if epoch != self._epoch:
            shuffle = generator(self.seed, Stream.ORDER, epoch)
            self._epoch, self._order = epoch, shuffle.permutation(len(self.samples))
        return self.samples[self._order[index]]


class SimulatedSource:
    """Simulated brains out of a pool that is refreshed every few steps; each process has its own.

    The pool starts with `fill` brains, and has a new one every `refresh_every` steps.
    """

    def __init__(
        self,
        pool: BrainPool,
        *,
        seed: int,
        refresh_every: int = 3,
        fill: int = 12,
        rank: int = 0,
    ) -> None:
        self.pool, self.seed, self.rank = pool, seed, rank
        self.refresh_every, self.fill = refresh_every, fill

    def rebuild(self, step: int) -> None:
        """Simulate the brains that an undisturbed training holds before a step."""
        streams = [generator(self.seed, Stream.FILL, n, self.rank) for n in range(self.fill)]
        streams += [
            generator(self.seed, Stream.ADVANCE, earlier, self.rank)
            for earlier in range(0, step, self.refresh_every)
        ]
        self.pool.brains.clear()
        for rng in streams[-self.pool.size :]:
            self.pool.refresh(rng)

    def advance(self, step: int, rng: np.random.Generator) -> None:
        """Simulate a new brain where the step is due for one."""
        if step % self.refresh_every == 0:
            self.pool.refresh(rng)

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return a random brain of the pool."""
        brains = self.pool.brains
        return brains[rng.integers(len(brains))]


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
    """Simulated brains on cubes of a shape, the oldest of `size` replaced by `refresh`.

    MS and NMOSD, in a share of `nmosd_share`, are among the classes; both draw their total load
    from the same distribution, so that the volume alone does not tell them apart. Where `HEALTHY`
    is a class too, a brain without lesions is of this class.
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


class PreparedSamples(Sequence[Sample]):
    """The samples of prepared scans, the classes in the network's order.

    The `keep` samples used last stay in memory: 12 MB each for a cube of 160 voxels per side.
    """

    def __init__(self, scans: Sequence[PreparedScan], classes: Sequence[str], keep: int = 32):
        self.scans, self.classes = tuple(scans), tuple(classes)
        self._load = lru_cache(maxsize=keep)(self._read)

    def __len__(self) -> int:
        """Return the number of scans."""
        return len(self.scans)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> PreparedSamples: ...

    def __getitem__(self, index: int | slice) -> Sample | PreparedSamples:
        """Return one sample, or some of the scans as samples that are not loaded yet.

        Raises
        ------
        MsnmoError
            The file of the scan is missing or damaged.
        """
        if isinstance(index, slice):
            keep = self._load.cache_parameters()["maxsize"]
            return PreparedSamples(self.scans[index], self.classes, keep)
        return self._load(range(len(self))[index])

    def _read(self, index: int) -> Sample:
        return self.scans[index].load(self.classes)


class SizedSource(SampleSource, Protocol):
    """A source whose length is the number of scans of an epoch."""

    def __len__(self) -> int: ...


class MixedSource:
    """Samples of two sources: real scans, and simulated brains in a share of the draws.

    Which source gives a sample depends on the generator of that sample alone, so that a resumed
    training draws what an undisturbed one does. The share is from 0 to 1 (1 excluded).

    Raises
    ------
    ValueError
        The share is out of range.
    """

    def __init__(self, real: SizedSource, simulated: SampleSource, simulated_share: float) -> None:
        if not 0 <= simulated_share < 1:
            raise ValueError(
                f"simulated_share must be at least 0 and below 1, not {simulated_share}"
            )
        self.real, self.simulated = real, simulated
        self.simulated_share = simulated_share

    def __len__(self) -> int:
        """Return the length of an epoch: it shows each real scan once, on average."""
        return round(len(self.real) / (1 - self.simulated_share))

    def rebuild(self, step: int) -> None:
        """Bring both sources to the state that the steps before ``step`` leave."""
        self.real.rebuild(step)
        self.simulated.rebuild(step)

    def advance(self, step: int, rng: np.random.Generator) -> None:
        """Prepare both sources for a step.

        The simulated source comes first, so that it simulates what it would simulate alone (and
        what its `rebuild` simulates again).
        """
        self.simulated.advance(step, rng)
        self.real.advance(step, rng)

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return a sample; `rng` is its own."""
        simulated = rng.random() < self.simulated_share
        return (self.simulated if simulated else self.real).draw(rng)
