"""From the ideal image to a scan: field of view, slice profile, bias field, noise, artefacts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from msnmo_bids.simulation.random_fields import resize_linear, smooth_noise


@dataclass(frozen=True)
class Protocol:
    """A FLAIR protocol.

    Parameters
    ----------
    name : str
        Name of the protocol.
    voxel : tuple of float, (3,)
        Distance of the voxels along R, A, S (mm); the slice axis is the one with the largest.
    thickness : float
        Slice thickness (mm); smaller than the distance when there is a gap.
    noise : float
        Standard deviation of the noise, relative to white matter.
    bias : float
        Strength of the bias field (standard deviation of its logarithm).
    """

    name: str
    voxel: tuple[float, float, float]
    thickness: float
    noise: float = 0.03
    bias: float = 0.15

    @property
    def slice_axis(self) -> int:
        """The axis across the slices."""
        return int(np.argmax(self.voxel))


PRESETS = {
    "1.5T-2D": Protocol("1.5T-2D", (0.9, 0.9, 6.5), 5.5, 0.04, 0.12),
    "1.5T-2D-8mm": Protocol("1.5T-2D-8mm", (0.9, 0.9, 8.0), 7.0, 0.05, 0.12),
    "3T-2D": Protocol("3T-2D", (0.7, 0.7, 4.0), 3.6, 0.03, 0.22),
    "3T-3D": Protocol("3T-3D", (1.0, 1.0, 1.0), 1.0, 0.04, 0.22),
}


#: Share of the scans with motion or ringing.
_ARTEFACT_SHARE = 0.2


def random_protocol(rng: np.random.Generator) -> Protocol:
    """Draw a protocol: a third 3D of about 1 mm, else 2D with slices of 2.5 to 8 mm."""
    noise, bias = float(rng.uniform(0.01, 0.06)), float(rng.uniform(0.02, 0.2))
    if rng.random() < 0.33:
        size = float(rng.uniform(0.9, 1.3))
        return Protocol("3D", (size, size, size), size, noise, bias)
    plane = float(rng.uniform(0.6, 1.1))
    gap = float(rng.uniform(2.5, 8.0))
    voxel = [plane, plane, plane]
    voxel[int(rng.choice(3, p=(0.08, 0.07, 0.85)))] = gap
    first, second, third = voxel
    return Protocol("2D", (first, second, third), gap * float(rng.uniform(0.8, 1.0)), noise, bias)


def sample_grid(
    volume: np.ndarray, spacing: float, protocol: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """Sample an ideal volume, (X, Y, Z) of isotropic voxels (mm), on the grid of a protocol.

    The slices have a box profile of the protocol's thickness, in the plane one of the voxel's size.

    Returns
    -------
    sampled : ndarray, float32
        The volume on the coarser grid.
    zooms : ndarray, (3,)
        Its exact voxel size (mm): the field of view holds a whole number of voxels.
    """
    extent = np.asarray(volume.shape) * spacing
    shape = tuple(int(n) for n in np.maximum(np.round(extent / protocol.voxel), 2))
    for axis, size in enumerate(protocol.voxel):
        width = protocol.thickness if axis == protocol.slice_axis else size
        if width > 1.3 * spacing:
            volume = ndimage.uniform_filter1d(volume, max(2, round(width / spacing)), axis=axis)
    return resize_linear(volume, shape), extent / shape


def k_space_artefacts(
    image: np.ndarray,
    slice_axis: int,
    rng: np.random.Generator,
    *,
    motion: float = 0.0,
    kept: float = 1.0,
) -> np.ndarray:
    """Add Gibbs ringing and motion, where they arise: in the k-space of the slices.

    Parameters
    ----------
    image : ndarray, (X, Y, Z), float32
        Magnitude image, as the result is.
    slice_axis : int
        The axis across the slices, which is not encoded in k-space here.
    rng : numpy.random.Generator
        Source of randomness.
    motion : float, optional
        Standard deviation of the shifts between blocks of phase-encoding lines (voxels).
    kept : float, optional
        Share of k-space that was acquired along both axes of the slices; the rest is zero, which
        gives ringing at sharp edges.
    """
    read, phase = (axis for axis in range(3) if axis != slice_axis)
    spectrum = np.fft.fft2(image, axes=(read, phase)).astype(np.complex64)
    for axis in (read, phase):
        outer = np.abs(np.fft.fftfreq(image.shape[axis])) > kept / 2
        spectrum *= _along(~outer, axis)
    if motion:
        lines = np.fft.fftfreq(image.shape[phase])
        blocks = np.sort(rng.uniform(-0.5, 0.5, int(rng.integers(2, 6))))
        shifts = rng.normal(0.0, motion, len(blocks) + 1)
        shifts[np.searchsorted(blocks, 0.0)] = 0.0  # the centre says where the head is
        turn = np.exp(-2j * np.pi * lines * shifts[np.searchsorted(blocks, lines)])
        spectrum *= _along(turn.astype(np.complex64), phase)
    return np.abs(np.fft.ifft2(spectrum, axes=(read, phase))).astype(np.float32)


def _along(values: np.ndarray, axis: int) -> np.ndarray:
    """Bring a vector to an axis of three."""
    view = [1, 1, 1]
    view[axis] = -1
    return values.reshape(view)


def bias_field(shape: tuple[int, ...], protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """Draw the bias field of a coil, of a protocol's strength: a factor about 1, float32."""
    return np.exp(protocol.bias * smooth_noise(shape, max(shape) / 2.5, rng))


def degrade(image: np.ndarray, protocol: Protocol, rng: np.random.Generator) -> np.ndarray:
    """Add ghosting, motion, ringing, gamma and a protocol's Rician noise.

    The image, (X, Y, Z) float32, has intensities relative to white matter times the bias field, on
    the grid of the protocol.
    """
    if rng.random() < 0.25:
        axis = int(rng.integers(2))
        shift = int(rng.integers(image.shape[axis] // 6, image.shape[axis] // 2))
        image = image + rng.uniform(0.01, 0.05) * np.roll(image, shift, axis=axis)
    if rng.random() < _ARTEFACT_SHARE:
        moves, rings = rng.random() < 0.5, rng.random() < 0.7
        image = k_space_artefacts(
            image,
            protocol.slice_axis,
            rng,
            motion=float(rng.uniform(0.3, 1.5)) if moves else 0.0,
            kept=float(rng.uniform(0.6, 0.85)) if rings else 1.0,
        )
    image = np.power(image, np.float32(rng.uniform(0.85, 1.2)))
    noise = rng.standard_normal((2, *image.shape), dtype=np.float32) * np.float32(protocol.noise)
    return np.hypot(image + noise[0], noise[1]).astype(np.float32)
