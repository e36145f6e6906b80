"""Where a voxel lies in the brain, as maps that a classifier can pool over the lesions.

A convolution does not know where it is. Multiple sclerosis and NMOSD differ most by where their
lesions lie (Matthews et al. 2013, "Distinction of seropositive NMO spectrum disorder and MS brain
lesion distribution"). The input is the brain's box, so a place in the cube is one in the brain, to
the precision that low frequencies need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def location_channels(waves: int) -> int:
    """Return the number of maps of `location_maps`.

    Parameters
    ----------
    waves : int
        Cosines along each axis; 0 for no maps.

    Returns
    -------
    int
        Half of the cosines of the first axis, times all of both others, without the constant.
    """
    return -(-waves // 2) * waves**2 - 1 if waves else 0


def location_maps(shape: Sequence[int], waves: int, device: torch.device | str = "cpu") -> Tensor:
    """Return products of cosines over a grid: a smooth map of the brain is a sum of them.

    Parameters
    ----------
    shape : sequence of int
        Grid, ``(D, H, W)``; the first axis runs from left to right.
    waves : int
        Cosines along each axis, the constant first. Of the first axis only the even ones are
        taken: left and right are alike.
    device : torch.device or str, optional
        Where to put them.

    Returns
    -------
    Tensor
        ``(C, D, H, W)``, -1 to 1, float32; C from `location_channels`.

    Examples
    --------
    >>> tuple(location_maps((4, 6, 6), 3).shape)
    (17, 4, 6, 6)
    """
    first, second, third = (_cosines(side, waves, device) for side in shape)
    maps = torch.einsum("ax,by,cz->abcxyz", first[::2], second, third)
    return maps.flatten(0, 2)[1:]


def _cosines(side: int, waves: int, device: torch.device | str) -> Tensor:
    """Return the first functions of the discrete cosine transform, ``(waves, side)``."""
    centres = (torch.arange(side, device=device) + 0.5) / side
    return torch.cos(math.pi * torch.arange(waves, device=device)[:, None] * centres)
