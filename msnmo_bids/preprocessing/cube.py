"""The network's input: the brain's bounding box, resized to a cube and z-scored.

All arrays here are in RAS axis order. A cube voxel covers ``box side / cube side`` source voxels
per axis, and voxel centres stay aligned: cube index ``i`` lies at the source index
``start + (i + 0.5) * scale - 0.5`` with ``scale = (stop - start) / cube side``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from msnmo_bids.errors import BadInputError

CUBE_SHAPE = (160, 160, 160)
MARGIN_MM = 5.0
Z_SCORE, ROBUST = "z-score", "robust"
NORMALIZATIONS = (Z_SCORE, ROBUST)
_NORMAL_QUARTILES = 1.3489795  # between the quartiles of a standard normal distribution
_MIN_SHARE_OF_BRAIN = 0.5  # a cube voxel is brain when at least this share of it is
_SMALLEST_DEVIATION = 1e-6  # relative to the mean; below it the brain counts as constant


@dataclass(frozen=True)
class CubeTransform:
    """The box of the source grid that a cube shows."""

    #: (3,): first voxel of the box and the one after its last (RAS indices). They may lie outside
    #: of the image, where the brain reaches its border: the cube is 0 there.
    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    source_shape: tuple[int, int, int]  #: (3,): shape of the source image.
    cube_shape: tuple[int, int, int]  #: (3,): shape of the cube.

    @property
    def scale(self) -> np.ndarray:
        """Source voxels per cube voxel, (3,)."""
        return np.subtract(self.stop, self.start) / np.asarray(self.cube_shape, dtype=float)

    def affine(self, source_affine: np.ndarray) -> np.ndarray:
        """Return the affine (4, 4) from cube index to RAS mm, by that from the source index."""
        to_source = np.diag([*self.scale, 1.0])
        to_source[:3, 3] = np.asarray(self.start) + self.scale / 2 - 0.5
        return np.asarray(source_affine, dtype=float) @ to_source

    def to_json(self) -> str:
        """Return the transform as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> CubeTransform:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{name: _triple(fields[name]) for name in cls.__dataclass_fields__})


def to_cube(
    image: Path, mask: Path, *, shape: Sequence[int] = CUBE_SHAPE
) -> tuple[np.ndarray, CubeTransform]:
    """Do as :func:`array_to_cube` with an image and its brain mask on the same RAS grid.

    Raises
    ------
    BadInputError
        The mask is empty, of another shape or thinner than a voxel of the cube, or the brain is
        constant.
    """
    import nibabel as nib

    flair, brain = nib.Nifti1Image.from_filename(image), nib.Nifti1Image.from_filename(mask)
    if flair.shape != brain.shape:
        raise BadInputError(
            f"brain mask of shape {brain.shape} for an image of shape {flair.shape}", file=mask
        )
    values = np.asanyarray(flair.dataobj, dtype=np.float32)
    inside = np.asanyarray(brain.dataobj) > 0
    try:
        return array_to_cube(values, inside, flair.header.get_zooms()[:3], shape)
    except ValueError as error:
        raise BadInputError(
            str(error), file=image, remedy="Check the brain mask and the image"
        ) from error


def array_to_cube(
    image: np.ndarray,
    mask: np.ndarray,
    zooms: Sequence[float],
    shape: Sequence[int] = CUBE_SHAPE,
    margin_mm: float = MARGIN_MM,
) -> tuple[np.ndarray, CubeTransform]:
    """Crop to the brain, resize and z-score an array: `resize_brain` and `normalize`.

    Return the cube of z-scores, float32, ``shape``, its background exactly 0, and where it lies.

    Raises
    ------
    ValueError
        The mask is empty or thinner than a voxel of the cube, or the brain is constant.
    """
    cube, is_brain, transform = resize_brain(image, mask, zooms, shape, margin_mm)
    cube[is_brain] = normalize(cube[is_brain])
    return cube, transform


def resize_brain(
    image: np.ndarray,
    mask: np.ndarray,
    zooms: Sequence[float],
    shape: Sequence[int] = CUBE_SHAPE,
    margin_mm: float = MARGIN_MM,
) -> tuple[np.ndarray, np.ndarray, CubeTransform]:
    """Crop to the brain and resize an array.

    The brain is resized as ``R(image * mask) / R(mask)`` with R the separable linear resize of
    `resize_weights`, so that background does not darken the brain's rim.

    FLAIR and brain mask (true or above 0) are (X, Y, Z) in RAS order, their voxels of `zooms`
    (3,), mm; the cube has `shape` (3,) and shows the brain's box with a margin (`brain_box`).

    Returns
    -------
    cube : ndarray of float32, ``shape``
        Intensities of the image; background exactly 0.
    is_brain : ndarray of bool, ``shape``
        Voxels of the cube at least half of which are brain.
    transform : CubeTransform
        Where the cube lies on the source grid.

    Raises
    ------
    ValueError
        The mask is empty, or thinner than a voxel of the cube.
    """
    inside = np.asarray(mask) > 0
    transform = brain_box(inside, zooms, shape, margin_mm)
    window = _window(transform)
    inside = inside[window]
    brain = np.where(inside, np.asarray(image)[window], 0).astype(np.float32)
    share = _resize(inside.astype(np.float32), transform)
    summed = _resize(brain, transform)
    is_brain = share >= _MIN_SHARE_OF_BRAIN
    if not is_brain.any():
        raise ValueError("the brain mask is thinner than a voxel of the cube")
    cube = np.zeros(transform.cube_shape, dtype=np.float32)
    cube[is_brain] = summed[is_brain] / share[is_brain]
    return cube, is_brain, transform


def normalize(values: np.ndarray, normalization: str = Z_SCORE) -> np.ndarray:
    """Shift and scale the intensities of a brain's voxels, (n,) of any unit, to float32.

    ``"z-score"``, as in the paper (section 3.1.2): mean 0 and standard deviation 1. ``"robust"``:
    median 0, and the interquartile range that of a normal distribution of standard deviation 1, so
    that a heavy lesion load moves neither (the local branch then normalises anew, by the mean and
    the standard deviation: :class:`msnmo_bids.model.blocks.BrainNormalization`).

    Raises
    ------
    ValueError
        All values are the same, or the normalisation is unknown.
    """
    if normalization == ROBUST:
        low, centre, high = np.percentile(values, (25, 50, 75))
        deviation = (high - low) / _NORMAL_QUARTILES
    elif normalization == Z_SCORE:
        centre, deviation = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    else:
        raise ValueError(f"normalization must be {Z_SCORE} or {ROBUST}, not {normalization!r}")
    if not deviation > _SMALLEST_DEVIATION * abs(centre):
        raise ValueError("the brain has the same intensity everywhere")
    return ((values - centre) / deviation).astype(np.float32)


def normalize_brain(image: np.ndarray, normalization: str = Z_SCORE) -> np.ndarray:
    """Return a volume, (D, H, W), as float32, the voxels other than 0 normalised (`normalize`)."""
    result = image.astype(np.float32)
    brain = result != 0
    result[brain] = normalize(result[brain], normalization)
    return result


def brain_box(
    mask: np.ndarray, zooms: Sequence[float], shape: Sequence[int], margin_mm: float
) -> CubeTransform:
    """Return the bounding box of a mask with a margin, as a cube's transform.

    Parameters are those of `resize_brain`. The margin (mm) is rounded up to whole voxels; the box
    is never clipped at the image's border.

    Raises
    ------
    ValueError
        The mask is empty.
    """
    start, stop = [], []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        occupied = np.flatnonzero(np.any(mask, axis=others))
        if not occupied.size:
            raise ValueError("the brain mask is empty")
        margin = int(np.ceil(margin_mm / float(zooms[axis])))
        start.append(int(occupied[0]) - margin)
        stop.append(int(occupied[-1]) + 1 + margin)
    return CubeTransform(_triple(start), _triple(stop), _triple(mask.shape), _triple(shape))


def labels_to_cube(labels: np.ndarray, transform: CubeTransform) -> np.ndarray:
    """Resize a label map, (X, Y, Z) on the source grid, to the cube by nearest neighbour.

    The dtype is kept; the cube is 0 outside of the source image.
    """
    cube = labels
    for axis, (start, stop) in enumerate(zip(transform.start, transform.stop, strict=True)):
        positions = _centres(stop - start, transform.cube_shape[axis]) + start
        nearest = np.rint(positions).astype(int)
        outside = (nearest < 0) | (nearest >= labels.shape[axis])
        cube = np.take(cube, nearest.clip(0, labels.shape[axis] - 1), axis=axis)
        cube[_along(axis, outside)] = 0
    return np.ascontiguousarray(cube)


def from_cube(array: np.ndarray, transform: CubeTransform) -> np.ndarray:
    """Bring a cube, (D, H, W) or (C, D, H, W), back to the source's RAS grid, trilinearly.

    The result is float32, (X, Y, Z) or (C, X, Y, Z); 0 outside of the box. Source voxel centres
    outside of the outermost cube centres take the nearest value.

    Raises
    ------
    ValueError
        The shape is not the cube's.
    """
    spatial = tuple(array.shape[-3:])
    if array.ndim not in (3, 4) or spatial != transform.cube_shape:
        raise ValueError(f"array of shape {array.shape} for a cube of {transform.cube_shape}")
    if array.ndim == 4:
        return np.stack([from_cube(channel, transform) for channel in array])
    window = _window(transform)
    values = np.asarray(array, dtype=np.float32)
    for axis, (start, stop) in enumerate(zip(transform.start, transform.stop, strict=True)):
        positions = _centres(transform.cube_shape[axis], stop - start)
        positions = positions[window[axis].start - start : window[axis].stop - start]
        values = _sample(values, positions, axis)
    result = np.zeros(transform.source_shape, dtype=values.dtype)
    result[window] = values
    return result


def resize_weights(n_in: int, n_out: int) -> np.ndarray:
    """Return the matrix, (n_out, n_in) float32, that resizes one axis linearly.

    The kernel is a triangle as wide as the larger voxel (two-sided), so that shrinking is
    anti-aliased; where the axis grows it is linear interpolation. Rows add up to 1.

    >>> resize_weights(2, 4)[:, 0].tolist()
    [1.0, 0.75, 0.25, 0.0]
    """
    width = max(n_in / n_out, 1.0)
    distance = np.abs(_centres(n_in, n_out)[:, None] - np.arange(n_in)[None, :])
    weights = np.clip(1 - distance / width, 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _resize(window: np.ndarray, transform: CubeTransform) -> np.ndarray:
    """Resize the part of the box that lies in the image; the rest of the box is 0."""
    inside = _window(transform)
    for axis in np.argsort(-transform.scale, kind="stable"):  # shrink first: less to compute
        start, stop = transform.start[axis], transform.stop[axis]
        weights = resize_weights(stop - start, transform.cube_shape[axis])
        weights = weights[:, inside[axis].start - start : inside[axis].stop - start]
        window = np.moveaxis(np.tensordot(weights, window, axes=(1, axis)), 0, axis)
    return window


def _sample(values: np.ndarray, positions: np.ndarray, axis: int) -> np.ndarray:
    positions = positions.clip(0, values.shape[axis] - 1)
    below = np.floor(positions).astype(int)
    above = np.minimum(below + 1, values.shape[axis] - 1)
    fraction = (positions - below).astype(np.float32)
    fraction = fraction.reshape([-1 if other == axis else 1 for other in range(3)])
    low, high = np.take(values, below, axis=axis), np.take(values, above, axis=axis)
    return low + fraction * (high - low)


def _centres(n_in: int, n_out: int) -> np.ndarray:
    """Positions of the ``n_out`` voxel centres in indices of the ``n_in`` voxels."""
    return (np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5


def _window(transform: CubeTransform) -> tuple[slice, ...]:
    ends = zip(transform.start, transform.stop, transform.source_shape, strict=True)
    return tuple(slice(max(start, 0), min(stop, size)) for start, stop, size in ends)


def _along(axis: int, index: np.ndarray) -> tuple[slice | np.ndarray, ...]:
    return tuple(index if other == axis else slice(None) for other in range(3))


def _triple(values: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = (int(value) for value in values)
    return x, y, z
