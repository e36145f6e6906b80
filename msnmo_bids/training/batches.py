"""Batches of samples, part of which may lack a mask or a diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from msnmo_bids.errors import BadInputError
from msnmo_bids.labelled.samples import Sample


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
    """Lay samples side by side.

    Parameters
    ----------
    samples : sequence of Sample
        Of one shape.
    classify_without_lesions : bool, optional
        If false, the diagnosis of a sample whose mask is empty counts as unknown.

    Returns
    -------
    Batch
        On the CPU.

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
