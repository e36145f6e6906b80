"""The samples of a training: prepared scans, simulated brains; augmented, cropped, side by side.

All randomness is a function of the seed, the step and the process: a training that was killed goes
on as if nothing had happened, without any state of a generator in its checkpoint.

On few cores a simulator that runs beside the trainer slows both down. So they alternate: one new
brain replaces the oldest one of a pool every few steps, and each is used for several crops.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from msnmo_bids.errors import BadInputError
from msnmo_bids.labelled.sample_file import Sample
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.simulation.lesion_placement import draw_load
from msnmo_bids.simulation.sample import simulate_scan, training_cube
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.prepared import PreparedScan

#: Samples of prepared scans that stay in memory.
KEPT = 32
#: Name of the class of healthy controls.
HEALTHY = "HC"
_BRAIN_LENGTH = 170.0  # mm
#: Share of the crops around a lesion, where there is one.
ON_LESION = 0.6


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


class PreparedSamples:
    """The samples of prepared scans by number, the classes in the network's order.

    The samples used last stay in memory: 12 MB each for a cube of 160 voxels per side.
    """

    def __init__(self, scans: Sequence[PreparedScan], classes: Sequence[str]):
        self.scans = tuple(scans)
        self._load = lru_cache(maxsize=KEPT)(lambda number: self.scans[number].load(classes))

    def __len__(self) -> int:
        """Return the number of scans."""
        return len(self.scans)

    def __getitem__(self, number: int) -> Sample:
        """Return a sample; MsnmoError if its file is missing or damaged."""
        return self._load(number)


class EpochSource:
    """Scans in an order shuffled anew for every epoch; each is shown once an epoch.

    Several processes share one order, so that the samples of a step are the same for any number of
    them. One process draws `samples_per_step` for a step.
    """

    def __init__(
        self,
        samples: PreparedSamples | Sequence[Sample],
        samples_per_step: int,
        *,
        seed: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
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
        return self.samples[int(self._order[index])]


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


class SimulatedSource:
    """Simulated brains out of a pool; each process has its own.

    A new brain replaces the oldest of `size`. MS and NMOSD are among the classes; both draw their
    total load from the same distribution, so that the volume alone does not tell them apart. Where
    `HEALTHY` is a class too, a brain without lesions is of this class.

    Attributes
    ----------
    nmosd_share, lesion_free_share : float
        Share of brains with NMOSD; of brains without lesions: more than among people with MS, for
        the sake of specificity.
    fill, refresh_every : int
        Brains of the pool at the start; steps between two new ones.
    """

    nmosd_share = 0.5
    lesion_free_share = 0.1
    fill = 12
    refresh_every = 3

    def __init__(
        self,
        assets: SimulationAssets,
        shape: tuple[int, int, int],
        *,
        classes: tuple[str, ...],
        seed: int = 0,
        rank: int = 0,
        size: int = 40,
    ) -> None:
        self.heads = [head.resampled(working_spacing(shape)) for head in assets.heads]
        self.shapes, self.shape, self.classes = assets.shapes, shape, classes
        self.seed, self.rank = seed, rank
        self.brains: deque[Sample] = deque(maxlen=size)

    def rebuild(self, step: int) -> None:
        """Simulate the brains that an undisturbed training holds before a step."""
        streams = [generator(self.seed, Stream.FILL, n, self.rank) for n in range(self.fill)]
        streams += [
            generator(self.seed, Stream.ADVANCE, earlier, self.rank)
            for earlier in range(0, step, self.refresh_every)
        ]
        self.brains.clear()
        for rng in streams[-(self.brains.maxlen or 0) :]:
            self.refresh(rng)

    def advance(self, step: int, rng: np.random.Generator) -> None:
        """Simulate a new brain where the step is due for one."""
        if step % self.refresh_every == 0:
            self.refresh(rng)

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return a random brain of the pool."""
        return self.brains[rng.integers(len(self.brains))]

    def refresh(self, rng: np.random.Generator) -> None:
        """Simulate one brain; the oldest goes when the pool is full."""
        diagnosis = "NMOSD" if rng.random() < self.nmosd_share else "MS"
        head = self.heads[rng.integers(len(self.heads))]
        load = draw_load(rng, without=self.lesion_free_share)
        if not load and HEALTHY in self.classes:
            diagnosis = HEALTHY
        scan = simulate_scan(head, rng, diagnosis=diagnosis, load=load, shapes=self.shapes)
        image, lesions = training_cube(scan, rng, self.shape)
        self.brains.append(Sample(image.astype(np.float16), lesions, self.classes.index(diagnosis)))


class MixedSource:
    """Samples of two sources: real scans, and simulated brains in a share (below 1) of the draws.

    Which source gives a sample depends on the generator of that sample alone, so that a resumed
    training draws what an undisturbed one does.
    """

    def __init__(self, real: EpochSource, simulated: SampleSource, simulated_share: float) -> None:
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
        """Prepare for a step; the simulated source comes first, as its `rebuild` needs it."""
        self.simulated.advance(step, rng)
        self.real.advance(step, rng)

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return a sample; `rng` is its own."""
        simulated = rng.random() < self.simulated_share
        return (self.simulated if simulated else self.real).draw(rng)


def augment(sample: Sample, config: TrainingConfig, rng: np.random.Generator) -> Sample:
    """Flip and rotate a sample, each with its own probability (section 3.1.3).

    A flip along one randomly chosen axis, and a random rotation, by MONAI's transforms; image and
    mask move together, and what comes in from outside is background. The sample is left as it is;
    the image is float32 where it was changed.
    """
    if not config.flip and not config.rotation:
        return sample
    keys = ["image"] if sample.lesions is None else ["image", "lesions"]
    data = {key: torch.from_numpy(getattr(sample, key).astype(np.float32))[None] for key in keys}
    transform = _transform(config, keys, axis=int(rng.choice(config.flip_axes)))
    transform.set_random_state(seed=int(rng.integers(2**32)))
    moved = {key: np.asarray(value)[0] for key, value in transform(data).items()}
    lesions = None if sample.lesions is None else moved["lesions"].astype(np.uint8)
    return Sample(moved["image"], lesions, sample.diagnosis, sample.name)


def _transform(config: TrainingConfig, keys: list[str], axis: int) -> Any:
    from monai import transforms

    angle = np.deg2rad(config.rotation_degrees)
    angles = {f"range_{name}": angle for name in "xyz"}
    mode = ["bilinear", "nearest"][: len(keys)]
    steps: list[Any] = [transforms.RandFlipd(keys, prob=config.flip, spatial_axis=axis)]
    if p := config.rotation:
        steps += [transforms.RandRotated(keys, prob=p, mode=mode, padding_mode="zeros", **angles)]
    return transforms.Compose(steps)


def random_crop(sample: Sample, side: int, rng: np.random.Generator) -> Sample:
    """Cut a cube, ``(side, side, side)``, out of a sample, which is left as it is.

    With a probability of `ON_LESION` it is around a random lesion voxel, where there is one; else
    around any voxel of the brain. A side as large as the sample's cube gives all of it; a larger
    one is a ValueError.
    """
    shape = np.asarray(sample.image.shape)
    if (shape < side).any():
        raise ValueError(f"side={side} is more than the sample's {tuple(shape.tolist())}")
    chosen = sample.lesions if rng.random() < ON_LESION else None
    voxels = np.flatnonzero(sample.image if chosen is None else chosen)
    if not voxels.size:
        voxels = np.flatnonzero(sample.image)
    centre = shape // 2
    if voxels.size:
        centre = np.array(np.unravel_index(rng.choice(voxels), sample.image.shape))
    jitter = rng.integers(-side // 4, side // 4 + 1, 3)
    start = np.clip(centre + jitter - side // 2, 0, shape - side)
    window = tuple(slice(s, s + side) for s in start)
    lesions = None if sample.lesions is None else sample.lesions[window]
    return Sample(sample.image[window], lesions, sample.diagnosis, sample.name)


@dataclass(frozen=True)
class Batch:
    """Samples side by side, on one device.

    `image` is ``(B, 1, D, H, W)`` float32, `mask` the same as uint8 and `diagnosis` ``(B,)`` int64,
    both 0 where there is none, as `has_mask` and `has_diagnosis`, ``(B,)`` of bool, say.
    """

    image: Tensor
    mask: Tensor
    diagnosis: Tensor
    has_mask: Tensor
    has_diagnosis: Tensor

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.image)

    @property
    def labels(self) -> dict[str, Tensor]:
        """All but the image, as the losses take it."""
        return {name: value for name, value in vars(self).items() if name != "image"}

    def part(self, start: int, stop: int) -> Batch:
        """Return the samples from `start` to before `stop`."""
        return Batch(**{name: value[start:stop] for name, value in vars(self).items()})

    def to(self, device: str) -> Batch:
        """Return the batch on a device."""
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


def collate(samples: Sequence[Sample]) -> Batch:
    """Lay samples side by side, on the CPU.

    Raises
    ------
    BadInputError
        If the shapes differ.
    """
    shape = samples[0].image.shape
    for sample in samples:
        if sample.image.shape != shape:
            raise BadInputError(
                f"is {sample.image.shape} and {samples[0].name or 'another scan'} is {shape}: "
                "samples of one batch must have one shape",
                file=sample.name or None,
                remedy="Prepare all scans with the same cube, train on crops, or with batches of 1",
            )
    masks = [np.zeros(shape, np.uint8) if s.lesions is None else s.lesions for s in samples]
    return Batch(
        image=torch.from_numpy(np.stack([s.image for s in samples]).astype(np.float32))[:, None],
        mask=torch.from_numpy(np.stack(masks).astype(np.uint8, copy=False))[:, None],
        diagnosis=torch.tensor([0 if s.diagnosis is None else s.diagnosis for s in samples]),
        has_mask=torch.tensor([s.lesions is not None for s in samples]),
        has_diagnosis=torch.tensor([s.diagnosis is not None for s in samples]),
    )
