"""A head of a few thousand voxels, with a brain of plausible volume and two lesions."""

from __future__ import annotations

import numpy as np

AFFINE = np.array([[7.0, 0, 0, -90], [0, 7, 0, -100], [0, 0, 7, -80], [0, 0, 0, 1]])


def head(shape: tuple[int, int, int] = (26, 30, 24), seed: int = 0) -> np.ndarray:
    """Return a bright brain (about 1.1 l at 7 mm voxels) in a dark head, with two lesions."""
    centre = (np.array(shape) - 1) / 2
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) - centre
    radius = np.linalg.norm(index / (np.array(shape) / 2), axis=-1)
    image = 20.0 * (radius < 0.95) + 80.0 * (radius < 0.75)
    image += np.random.default_rng(seed).normal(0, 2, shape) * (radius < 0.95)
    x, y, z = (int(c) for c in centre)
    image[x + 3 : x + 5, y : y + 2, z + 2 : z + 4] = 200
    image[x - 4, y - 3, z] = 180
    return image.clip(0).astype(np.float32)
