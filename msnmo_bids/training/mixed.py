"""Real and simulated training samples, mixed; real ones are loaded when they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol, overload

import numpy as np

from msnmo_bids.labelled.samples import Sample
from msnmo_bids.training.prepared import PreparedScan
from msnmo_bids.training.sources import SampleSource


class PreparedSamples(Sequence[Sample]):
    """The samples of prepared scans; the ones used last are kept in memory.

    Parameters
    ----------
    scans : sequence of PreparedScan
        The scans.
    classes : sequence of str
        Names of the classes, in the network's order.
    keep : int, optional
        Number of samples in memory: 12 MB each for a cube of 160 voxels per side.
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
    training draws what an undisturbed one does.

    Parameters
    ----------
    real : source with a length
        Real scans.
    simulated : source
        Simulated brains.
    simulated_share : float
        Share of the draws that are simulated, 0 to 1 (1 excluded).

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
        """Bring about the state that the steps before ``step`` leave."""
        self.real.rebuild(step)
        self.simulated.rebuild(step)

    def advance(self, step: int, rng: np.random.Generator) -> None:
        """Prepare both sources for a step.

        Parameters
        ----------
        step : int
            The step.
        rng : numpy.random.Generator
            Of the step; the simulated source comes first, so that it simulates what it would
            simulate alone (and what its `rebuild` simulates again).
        """
        self.simulated.advance(step, rng)
        self.real.advance(step, rng)

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return a sample.

        Parameters
        ----------
        rng : numpy.random.Generator
            Of this sample.

        Returns
        -------
        Sample
        """
        simulated = rng.random() < self.simulated_share
        return (self.simulated if simulated else self.real).draw(rng)
