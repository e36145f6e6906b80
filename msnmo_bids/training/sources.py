"""Where the samples of a training come from, and the random numbers of a step.

All randomness is a function of the seed, the step and the process: a training that was killed goes
on as if nothing had happened, without any state of a generator in its checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Protocol

import numpy as np

from msnmo_bids.labelled.samples import Sample
from msnmo_bids.training.pool import BrainPool


class Stream(IntEnum):
    """What random numbers are for: each purpose has its own."""

    ADVANCE = 0
    FILL = 1
    SAMPLE = 2
    NETWORK = 3
    ORDER = 4


def generator(seed: int, stream: Stream, *position: int) -> np.random.Generator:
    """Return the generator of a purpose at a position.

    Parameters
    ----------
    seed : int
        Seed of the training.
    stream : Stream
        The purpose.
    *position : int
        Such as step, rank of the process, number of the sample.

    Returns
    -------
    numpy.random.Generator
    """
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
    them.

    Parameters
    ----------
    samples : sequence of Sample
        May load a sample when it is asked for one.
    samples_per_step : int
        Samples that one process draws for a step.
    seed : int
        Seed of the training.
    rank, processes : int, optional
        Number of this process and of all.

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
    """Simulated brains out of a pool that is refreshed every few steps.

    Parameters
    ----------
    pool : BrainPool
        Simulates and keeps the brains.
    seed : int
        Seed of the training.
    refresh_every : int, optional
        Steps between two new brains.
    fill : int, optional
        Number of brains to start with.
    samples_per_step : int, optional
        Samples that one process draws for a step; only turns read it.
    turns : bool, optional
        Draw the classes in turn, with lesions, so that a constant answer gains nothing.
    rank : int, optional
        Number of this process, which simulates its own brains.
    """

    def __init__(
        self,
        pool: BrainPool,
        *,
        seed: int,
        refresh_every: int = 3,
        fill: int = 12,
        samples_per_step: int = 1,
        turns: bool = False,
        rank: int = 0,
    ) -> None:
        self.pool, self.seed, self.rank = pool, seed, rank
        self.refresh_every, self.fill = refresh_every, fill
        self.samples_per_step, self.turns = samples_per_step, turns
        self._next = 0

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
        self._next = step * self.samples_per_step
        if step % self.refresh_every == 0:
            self.pool.refresh(rng)

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return a random brain of the pool, of the class whose turn it is."""
        turn = self._next % len(self.pool.classes) if self.turns else None
        self._next += 1
        return self.pool.draw(rng, turn)
