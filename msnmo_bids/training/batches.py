"""Samples augmented, cropped and laid side by side; part of them may lack a mask or a diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msnmo_bids.errors import BadInputError
from msnmo_bids.labelled.samples import Sample
from msnmo_bids.training.config import TrainingConfig

_SCALE = 0.1
_SHIFT = 0.1
_NOISE = 0.1


def augment(sample: Sample, config: TrainingConfig, rng: np.random.Generator) -> Sample:
    """Flip, rotate and, where asked for, change the intensity of a sample (section 3.1.3).

    The paper's two, each with its own probability: a flip along one randomly chosen axis, and a
    random rotation, by MONAI's transforms; image and mask move together, and what comes in from
    outside is background. Changes of intensity leave the background at 0. The sample is left as it
    is; the image is float32 where it was changed.
    """
    if not config.flip and not config.rotation and not config.intensity:
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
    if config.rotation:
        steps.append(
            transforms.RandRotated(
                keys, prob=config.rotation, mode=mode, padding_mode="zeros", **angles
            )
        )
    if config.intensity:
        p = config.intensity
        changes = [
            transforms.RandScaleIntensityd("image", _SCALE, prob=p),
            transforms.RandShiftIntensityd("image", _SHIFT, prob=p),
            transforms.RandGaussianNoised("image", prob=p, std=_NOISE),
        ]
        steps += [transforms.CopyItemsd("image", names="before"), *changes, _KeepBackground()]
    return transforms.Compose(steps)


class _KeepBackground:
    """Set the background, 0 before the changes of intensity, to 0 again."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        data["image"] = data["image"] * (data.pop("before") != 0)
        return data


def random_crop(
    sample: Sample, side: int, rng: np.random.Generator, *, on_lesion: float = 0.6
) -> Sample:
    """Cut a cube, ``(side, side, side)``, out of a sample, which is left as it is.

    With the probability `on_lesion` it is around a random lesion voxel, where there is one; else
    around any voxel of the brain. A side as large as the sample's cube gives all of it.

    Raises
    ------
    ValueError
        If the sample is smaller than the crop.
    """
    shape = np.asarray(sample.image.shape)
    if (shape < side).any():
        raise ValueError(f"side={side} is more than the sample's {tuple(shape.tolist())}")
    chosen = sample.lesions if rng.random() < on_lesion else None
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

    Parameters
    ----------
    image : Tensor
        ``(B, 1, D, H, W)``, float32.
    mask : Tensor
        ``(B, 1, D, H, W)``, uint8; 0 where there is none.
    diagnosis : Tensor
        ``(B,)``, int64; 0 where there is none.
    has_mask, has_diagnosis : Tensor
        ``(B,)`` of bool.
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


def collate(samples: Sequence[Sample], *, classify_without_lesions: bool = True) -> Batch:
    """Lay samples side by side, on the CPU.

    Unless `classify_without_lesions`, the diagnosis of a sample whose mask is empty counts as
    unknown.

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
    known = [
        s.diagnosis is not None
        and (classify_without_lesions or s.lesions is None or bool(s.lesions.any()))
        for s in samples
    ]
    return Batch(
        image=torch.from_numpy(np.stack([s.image for s in samples]).astype(np.float32))[:, None],
        mask=torch.from_numpy(np.stack(masks).astype(np.uint8, copy=False))[:, None],
        diagnosis=torch.tensor([0 if s.diagnosis is None else s.diagnosis for s in samples]),
        has_mask=torch.tensor([s.lesions is not None for s in samples]),
        has_diagnosis=torch.tensor(known),
    )
