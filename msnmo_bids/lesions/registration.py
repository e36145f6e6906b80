"""A deterministic affine or rigid registration of two brains of similar contrast.

ANTs' registration gives other results with another number of threads, and with several threads
even from run to run; a region in a report must not depend on that. Here a robust Gauss-Newton
minimisation of intensity differences, from coarse to fine, needs about a second, draws no random
number and sums in a fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from msnmo_bids.preprocessing.cube import resize_weights

GRID_MM = 4.0  # spacing of the fixed image's samples
#: Blur (mm, s.d.), scale of the robust weights (in units of the brain's median), iterations.
LEVELS = ((8.0, 0.6, 30), (4.0, 0.4, 30), (2.0, 0.3, 30))
BRIGHTEST = 1.35  # of the brain's median: lesions, fat and eyes are cut off there
_LENGTH = 60.0  # mm; makes rotations and translations alike for the solver
_TOLERANCE_MM = 0.005
_HALO_MM = 12.0  # samples this far outside of the brain are used too
_EXTENT = (0.02, 0.98)  # quantiles of the brain's voxels, where boxes are compared


def register_affine(
    fixed: np.ndarray,
    fixed_zooms: Sequence[float],
    moving: np.ndarray,
    moving_zooms: Sequence[float],
    *,
    rigid: bool = False,
) -> np.ndarray:
    """Find the affine map, (4, 4), from the index of one brain to that of another.

    Minimises ``sum w(r) r^2`` with ``r = moving(A x + t) - (gain * fixed(x) + offset)`` over the
    fixed image's samples x in and around the brain, with Geman-McClure weights w; gain and offset
    are fitted along (Gauss-Newton with Levenberg's damping, three blurs).

    The images, (X, Y, Z), are skull-stripped, in RAS order, 0 outside of the brain; the voxel sizes
    are in mm. A rigid map only turns and shifts (in mm): the same brain at another visit.

    Raises
    ------
    ValueError
        An image is empty.
    """
    target, target_spacing = _resampled(_normalised(fixed), np.asarray(fixed_zooms, dtype=float))
    source, source_spacing = _normalised(moving), np.asarray(moving_zooms, dtype=float)
    brain = target > 0
    reach = ndimage.distance_transform_edt(~brain, sampling=target_spacing) <= _HALO_MM
    index = np.argwhere(reach)
    points = _millimetres(index, target_spacing)
    parameters = _initial(target, target_spacing, source, source_spacing, rigid)
    for blur, scale, iterations in LEVELS:
        values = ndimage.gaussian_filter(target, blur / target_spacing)[tuple(index.T)]
        smooth = ndimage.gaussian_filter(source, blur / source_spacing)
        parameters = _descend(
            parameters, points, values, smooth, source_spacing, scale, iterations, rigid
        )
    back = np.linalg.inv(_to_millimetres(source_spacing))
    return back @ parameters @ _to_millimetres(np.asarray(fixed_zooms, dtype=float))


def _normalised(image: np.ndarray) -> np.ndarray:
    values = np.clip(np.nan_to_num(np.asarray(image, dtype=np.float32)), 0, None)
    inside = values[values > 0]
    if not inside.size:
        raise ValueError("the image is empty")
    return np.minimum(values / np.median(inside), BRIGHTEST)


def _resampled(image: np.ndarray, zooms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Resize to about `GRID_MM` with the same field of view; return the exact spacing too."""
    shape = np.maximum(np.rint(np.asarray(image.shape) * zooms / GRID_MM), 4).astype(int)
    spacing = np.asarray(image.shape) * zooms / shape
    for axis, size in enumerate(shape):
        weights = resize_weights(image.shape[axis], int(size))
        image = np.moveaxis(np.tensordot(weights, image, axes=(1, axis)), 0, axis)
    return np.where(image > 0.05, image, 0), spacing


def _to_millimetres(spacing: np.ndarray) -> np.ndarray:
    """Index to millimetres from the corner of the field of view, (4, 4)."""
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = 0.5 * spacing
    return matrix


def _millimetres(index: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    return (index + 0.5) * spacing


def _initial(
    target: np.ndarray,
    target_spacing: np.ndarray,
    source: np.ndarray,
    source_spacing: np.ndarray,
    rigid: bool,
) -> np.ndarray:
    """Match the brains' boxes: centres left-right and back-front, but the tops.

    Scans end at different levels of the neck's side, so the height is not compared.
    """
    boxes = []
    for image, spacing in ((target, target_spacing), (source, source_spacing)):
        place = _millimetres(np.argwhere(image > 0), spacing)
        boxes.append(np.quantile(place, _EXTENT, axis=0))
    (low, high), (source_low, source_high) = boxes
    scale = np.ones(3)
    if not rigid:
        scale[:2] = ((source_high - source_low) / np.maximum(high - low, 1.0))[:2].clip(0.7, 1.4)
        scale[2] = np.sqrt(scale[0] * scale[1])
    matrix = np.diag([*scale, 1.0])
    matrix[:3, 3] = (source_low + source_high) / 2 - scale * (low + high) / 2
    matrix[2, 3] = source_high[2] - scale[2] * high[2]
    return matrix


def _descend(
    matrix: np.ndarray,
    points: np.ndarray,
    values: np.ndarray,
    source: np.ndarray,
    spacing: np.ndarray,
    scale: float,
    iterations: int,
    rigid: bool,
) -> np.ndarray:
    """Gauss-Newton at one blur; returns the improved matrix (mm to mm)."""
    gradients = [np.gradient(source, spacing[axis], axis=axis) for axis in range(3)]
    centre = points.mean(axis=0)
    arms = np.column_stack([(points - centre) / _LENGTH, np.ones(len(points))])
    damping, current = 1e-3, np.inf
    candidate = best = matrix
    step = np.zeros((3, 4))
    moves = _moves(best, rigid)
    free = moves.shape[1]
    normal, right = np.zeros((free + 2, free + 2)), np.zeros(free + 2)
    for _ in range(iterations):
        place = (points @ candidate[:3, :3].T + candidate[:3, 3]) / spacing - 0.5
        cost, weights, residual = _fit_contrast(_sampled(source, place), values, scale)
        if cost < current:
            if current - cost < 1e-7 * cost:
                return candidate
            best, current, damping = candidate, cost, damping / 5
            slopes = np.stack([_sampled(g, place) for g in gradients], axis=-1)
            columns = (slopes[:, :, None] * arms[:, None, :]).reshape(len(points), 12)
            moves = _moves(best, rigid)
            columns = np.einsum("ni,ij->nj", columns, moves) if rigid else columns
            jacobian = np.column_stack([columns, -values, -np.ones_like(values)])
            weighted = jacobian * weights[:, None]
            normal = np.einsum("ni,nj->ij", weighted, jacobian)  # no BLAS: the same on any threads
            right = np.einsum("ni,n->i", weighted, residual)
        else:
            damping *= 8
        ridge = damping * np.diag(np.diag(normal)) + 1e-9 * np.trace(normal) * np.eye(free + 2)
        step = (moves @ -np.linalg.solve(normal + ridge, right)[:free]).reshape(3, 4)
        if np.abs(step).max() * max(1.0, 100 / _LENGTH) < _TOLERANCE_MM:
            return best
        candidate = best.copy()
        candidate[:3, :3] += step[:, :3] / _LENGTH
        candidate[:3, 3] += step[:, 3] - step[:, :3] @ centre / _LENGTH
        if rigid:
            candidate = _without_scaling(candidate, centre)
    return best


def _moves(matrix: np.ndarray, rigid: bool) -> np.ndarray:
    """Return the steps that a matrix may take, (12, n): rows and arms of a step times n moves."""
    if not rigid:
        return np.eye(12)
    moves = np.zeros((3, 4, 6))
    for axis in range(3):
        # A small turn about the axis changes the matrix by its cross product with each column.
        moves[:, :3, axis] = np.cross(np.eye(3)[axis], matrix[:3, :3], axisb=0, axisc=0)
        moves[axis, 3, 3 + axis] = 1.0
    return moves.reshape(12, 6)


def _without_scaling(matrix: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return the nearest rigid matrix that moves the centre to the same place."""
    left, _, right = np.linalg.svd(matrix[:3, :3])
    turned = matrix.copy()
    turned[:3, :3] = left @ right
    turned[:3, 3] += matrix[:3, :3] @ centre - turned[:3, :3] @ centre
    return turned


def _fit_contrast(
    moved: np.ndarray, values: np.ndarray, scale: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Fit gain and offset of ``values`` to ``moved``; return robust cost, weights, residuals."""
    gain = float(np.sum((values - values.mean()) * (moved - moved.mean())))
    gain /= max(float(np.sum((values - values.mean()) ** 2)), 1e-12)
    residual = moved - moved.mean() - gain * (values - values.mean())
    ratio = (residual / scale) ** 2
    return float(np.mean(ratio / (1 + ratio))), (1 + ratio) ** -2.0, residual


def _sampled(image: np.ndarray, place: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(image, place.T, order=1, mode="constant")
