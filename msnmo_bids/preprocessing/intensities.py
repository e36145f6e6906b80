"""The background of an image becomes its zero, and what is not an intensity is taken out.

A magnitude image of a scanner is 0 in the air. Exports are not always: z-scored, shifted or padded
images have another background, exports and resampling leave NaN outside of the head, and a faulty
voxel may outshine all others. The steps that follow (skull stripping, the logarithm of N4, the
contrast of lesions) need 0 in the air. Only a constant is taken off here: nothing is scaled and
nothing is clipped, so what is darker than the background stays so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

SHIFTED = "intensities_shifted"
NOT_FINITE = "nan_outside_head"
HOT_VOXELS = "hot_voxels"

_SAMPLED_VOXELS = 2_000_000
_CONSTANT_SHARE = 0.25  # of the image's outer faces, from which a value is its background
_TOLERANCE = 0.05  # of the range; noise of the air lies within
_DARKEST_TISSUE = 10.0  # of the range above it; where there is no air, it is no farther above 0
_PADDING_GAP = 1.5  # in ranges of the other values: a background that far below is padding
_HOT = 4.0  # times the 99th percentile; real FLAIR here: at most 2.7 times
_DARK = 0.15  # of the 99th percentile: darker is air, bone or fluid
# A hole lies in air, bone or fluid where at least this share of its neighbours is dark: of a voxel,
# and of a larger hole. In real heads whose zeros were made NaN, these are all holes of more than 20
# voxels and 97 % of the others; cavities have up to 2.2 ml.
_DARK_SHELL = (0.15, 0.35)
_SPECK = 20
_SPECKS_IN_TISSUE = 0.05  # of the voxels of all holes
_LARGEST_CAVITY_ML = 5.0
_FEW_LEVELS = 12  # images of 8 bits have a hundred and more
_HALF_RANGE = 2**14  # of whole numbers of 16 bits
_SPECKS = 0.01  # of a slice: fewer voxels in air are hot ones, or specks


@dataclass(frozen=True)
class Intensities:
    """What was found about an image's intensities and mended."""

    zero: float = 0.0  #: Value of the image as it came that is 0 now.
    n_not_finite: int = 0  #: Voxels outside of the head that were NaN or infinite, and are 0 now.
    n_hot: int = 0  #: Voxels far beyond all others, replaced by the median of their neighbours.

    @property
    def flags(self) -> list[str]:
        """Flags for the report, one for each thing that was mended."""
        found = {SHIFTED: self.zero != 0, NOT_FINITE: self.n_not_finite, HOT_VOXELS: self.n_hot}
        return [flag for flag, is_set in found.items() if is_set]


def background_to_zero(data: np.ndarray, voxel_ml: float = 0.001) -> tuple[np.ndarray, Intensities]:
    """Make an image's background its zero; mend voxels without a value and hot voxels.

    `data`, (X, Y, Z) float32, are intensities as they came, `voxel_ml` is a voxel's volume (ml).
    Return the same, finite (``data`` itself where nothing was wrong), and what was done.

    Raises
    ------
    ValueError
        Voxels within the head are NaN or infinite, or all are.

    >>> image = np.pad(np.full((4, 4, 4), 90.0), 3, constant_values=-10.0)
    >>> image[0, 0, 0] = np.nan
    >>> mended, found = background_to_zero(image)
    >>> float(mended.min()), float(mended.max()), found.zero
    (0.0, 100.0, -10.0)
    >>> found.flags
    ['intensities_shifted', 'nan_outside_head']
    """
    bad = ~np.isfinite(data)
    n_bad = int(np.count_nonzero(bad))
    if n_bad == data.size:
        raise ValueError("every voxel is NaN or infinite")
    sample = _sample(data)
    border, share = commonest_at_border(data)
    background = border if share >= _CONSTANT_SHARE else None  # its air has noise
    zero = _zero(sample, background)
    high = float(np.percentile(sample, 99)) - zero
    if high <= 0:
        high = float(sample.max()) - zero
    if n_bad:
        in_head = _count_in_head(data, bad, zero + _DARK * high, voxel_ml)
        if in_head:
            raise ValueError(f"{in_head} of {data.size} voxels are NaN or infinite within the head")
    empty = bad
    if background is not None and np.isfinite(background) and background != zero:
        empty = _joined_to_border(bad | (data == background)) | bad
    result = data
    if zero or empty.any():
        result = np.subtract(data, np.float32(zero), dtype=np.float32)
        result[empty] = 0
    hot = (result > _HOT * high) | (result < -_HOT * high)
    n_hot = int(np.count_nonzero(hot))
    if n_hot:
        result = _without(result, hot)
    return result, Intensities(zero, n_bad, n_hot)


def fault_of_values(stored: np.ndarray, *, scaled: bool = False) -> str:
    """Say what is wrong with an image's values as they are stored, (X, Y, Z); empty if nothing is.

    That is a label map in place of an image, whole numbers of 16 bits that exceeded their range
    (the brightest became negative; numbers `scaled` by the header use all of it), and slices within
    the image that hold one value alone.
    """
    levels = np.unique(stored) if stored.dtype.itemsize == 1 else np.unique(_sample(stored))
    if 1 < len(levels) <= _FEW_LEVELS:
        return f"only {len(levels)} different values: a mask or a label map, not an image"
    if stored.dtype.kind == "i" and stored.dtype.itemsize == 2 and not scaled:
        over = _n_wrapped(stored)
        if over:
            return f"{over} voxels exceeded the range of 16 bits: the brightest are negative"
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        least = np.fmin.reduce(stored, axis=others, keepdims=True)
        count = np.count_nonzero(stored > least, axis=others)
        empty = len(_between(count == 0, count > _SPECKS * stored.size / stored.shape[axis]))
        if empty:
            return f"{empty} slices within the image are empty (one value)"
    return ""


def _n_wrapped(stored: np.ndarray) -> int:
    """Count the voxels that are far below 0 beside others far above it."""
    low = (stored < -_HALF_RANGE) & (stored > stored.min())  # the least may be padding
    if not low.any():
        return 0
    high, beside = stored > _HALF_RANGE, np.zeros(stored.shape, bool)
    for axis in range(3):
        near, there = np.moveaxis(beside, axis, 0), np.moveaxis(high, axis, 0)
        near[1:] |= there[:-1]
        near[:-1] |= there[1:]
    return int(np.count_nonzero(low & beside))


def _sample(data: np.ndarray) -> np.ndarray:
    """Return finite values, evenly spread over an image."""
    flat = data.ravel(order="K")
    some = flat[:: max(1, flat.size // _SAMPLED_VOXELS)]
    some = some[np.isfinite(some)]
    return some if some.size else flat[np.isfinite(flat)]


def commonest_at_border(data: np.ndarray) -> tuple[float, float]:
    """Return the commonest value (maybe NaN) of an image's outer faces, and its share of them."""
    outer = np.concatenate([face.ravel() for face in faces(data)])
    values, counts = np.unique(np.where(np.isfinite(outer), outer, np.nan), return_counts=True)
    return float(values[counts.argmax()]), float(counts.max() / outer.size)


def _zero(sample: np.ndarray, background: float | None) -> float:
    """Return the intensity of the air; what is near 0 is left where it is."""
    # A constant background is the air, unless it is brighter than the darkest tissue (an image that
    # was z-scored within its brain) or negative and far below all others (padding). Where the air
    # has noise, its darkest part is taken; where there is no air, the darkest tissue.
    others = sample if background is None else sample[sample != background]
    if not others.size:
        return 0.0 if background is None else background
    low, high = (float(value) for value in np.percentile(others, [1, 99]))
    extent = high - low
    no_air = background is not None
    if background is not None and np.isfinite(background):
        no_air = low < background - _TOLERANCE * extent
        padding = background < 0 and extent > 0 and low > background + _PADDING_GAP * extent
        if not no_air and not padding:
            return background
    dark = _DARKEST_TISSUE if no_air else _TOLERANCE
    near = extent == 0 or -_TOLERANCE * extent <= low <= dark * extent
    return 0.0 if near else low


def _count_in_head(data: np.ndarray, bad: np.ndarray, dark: float, voxel_ml: float) -> int:
    """Count the voxels without a value that lie in tissue: in missing slices, and in holes."""
    # Holes count whose surface is bright, or that no cavity is as large as. Where the dark of an
    # image as a whole has no values, some specks at its bright rims are not tissue either.
    count = sum(
        int(np.count_nonzero(np.take(bad, index, axis=axis)))
        for axis in range(3)
        for index in _missing_slices(bad, axis)
    )
    holes, n_holes = ndimage.label(bad & ~_joined_to_border(bad))
    if not n_holes:
        return count
    surface, dark_surface = np.zeros(n_holes + 1), np.zeros(n_holes + 1)
    for axis in range(3):
        first = [slice(None)] * 3
        second = [slice(None)] * 3
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        for here, there in ((first, second), (second, first)):
            hole, beside = holes[tuple(here)], data[tuple(there)]
            at = (hole > 0) & np.isfinite(beside)
            surface += np.bincount(hole[at], minlength=n_holes + 1)
            dark_surface += np.bincount(hole[at & (beside < dark)], minlength=n_holes + 1)
    sizes = np.bincount(holes.ravel(), minlength=n_holes + 1)
    least = np.where(sizes == 1, *_DARK_SHELL)
    in_tissue = dark_surface < least * surface
    sizes[0] = 0
    large = (in_tissue & (sizes > _SPECK)) | (sizes * voxel_ml > _LARGEST_CAVITY_ML)
    count += int(sizes[large].sum())
    n_specks = int(sizes[in_tissue & ~large].sum())
    return count + (n_specks if count or n_specks > _SPECKS_IN_TISSUE * sizes.sum() else 0)


def _missing_slices(bad: np.ndarray, axis: int) -> np.ndarray:
    """Return the indices of slices without any value that lie between others."""
    missing = np.asarray(bad.all(axis=tuple(other for other in range(3) if other != axis)))
    return _between(missing, ~missing)


def _between(missing: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the indices of what is missing, (N,) bool, between things that are there."""
    found = np.flatnonzero(there)
    return np.flatnonzero(missing[found[0] : found[-1]]) + found[0] if found.size else found


def _joined_to_border(mask: np.ndarray) -> np.ndarray:
    """Return the part of a mask that 6-connected paths join to the image's border."""
    labels, count = ndimage.label(mask)
    at_border = np.zeros(count + 1, dtype=bool)
    for face in faces(labels):
        at_border[np.unique(face)] = True
    at_border[0] = False
    return np.take(at_border, labels)


def _without(data: np.ndarray, hot: np.ndarray) -> np.ndarray:
    """Replace voxels by the median of those around them that are not to be replaced."""
    result, left = data.copy(), hot.copy()
    corner = np.array(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij")).reshape(3, -1).T
    while left.any():
        places = np.argwhere(left)
        around = np.clip(places[:, None] + corner, 0, np.array(data.shape) - 1)
        index = tuple(np.moveaxis(around, -1, 0))
        values = np.where(left[index], np.nan, result[index])
        known = np.isfinite(values).any(axis=1)
        mended = tuple(places[known].T)
        result[mended] = np.nanmedian(values[known], axis=1)
        left[mended] = False
    return result


def faces(data: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the six outermost planes of an image."""
    for axis in range(3):
        for face in (0, -1):
            yield np.take(data, face, axis=axis)
