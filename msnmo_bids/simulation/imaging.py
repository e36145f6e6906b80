"""From a head with lesions to the acquired image: contrast, field of view, bias, noise, artefacts.

Means follow FLAIR intensity ratios measured on real scans; in a share of the samples they are
drawn freely, so that a network does not rely on one contrast. Structures that look like lesions
and are not (ventricular caps and rims, haze and streaks of the optic radiation, bright splenium
and fornix, bright insula, flow in the ventricles and cisterns, choroid plexus) are drawn
independently of the lesions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from msnmo_bids.simulation.anatomy import DISTANCE_STEP, Head, Tissue
from msnmo_bids.simulation.deformation import along, resize_linear, smooth_noise
from msnmo_bids.simulation.stamping import LesionMap

#: Range of the mean intensity of each tissue, relative to white matter.
TISSUE_RANGE: dict[Tissue, tuple[float, float]] = {
    Tissue.AIR: (0.0, 0.03),
    Tissue.WHITE_MATTER: (1.0, 1.0),
    Tissue.CORTEX: (1.0, 1.3),
    Tissue.DEEP_GREY: (0.95, 1.15),
    Tissue.LATERAL_VENTRICLE: (0.22, 0.48),
    Tissue.THIRD_VENTRICLE: (0.25, 0.60),
    Tissue.FOURTH_VENTRICLE: (0.25, 0.65),
    Tissue.CSF: (0.25, 0.62),
    Tissue.CEREBELLAR_WHITE: (0.93, 1.12),
    Tissue.CEREBELLAR_CORTEX: (1.0, 1.2),
    Tissue.BRAINSTEM: (0.92, 1.12),
    Tissue.CHOROID_PLEXUS: (0.6, 1.8),
    Tissue.SOFT_TISSUE: (0.25, 2.8),
    Tissue.SCALP: (0.35, 2.8),
    Tissue.BONE: (0.03, 0.25),
    Tissue.MARROW: (0.2, 1.4),
    Tissue.EYE: (0.15, 0.5),
    Tissue.VESSEL: (0.05, 0.6),
}

#: Share of the heads whose sulci are narrower than those of the label maps, mostly of older people.
_NARROW_SULCI_SHARE = 0.6
#: How far a cap may reach in front of and behind the end of a horn (mm).
_CAP_REACH = 20
#: How far the optic radiation is bright in front of the end of an occipital horn (mm).
_RADIATION_REACH = 30
#: Half the width of the callosum and fornix near the midline (mm).
_MIDLINE_WIDTH = 10.0
#: Share of the heads in which callosum and fornix are bright.
_MIDLINE_SHARE = 0.35
#: Fluid this near to the third and fourth ventricle lies in the basal cisterns (mm).
_CISTERNS = 25.0
_FLUID = 0.7  # a lesion darker than this, relative to white matter, holds fluid
#: Free tissue means stay below this, and so below a lesion's mean of 1.5.
_BRIGHTEST = 1.4
#: Share of the scans with motion or ringing.
_ARTEFACT_SHARE = 0.2


def tissue_means(rng: np.random.Generator, *, free: bool = False) -> np.ndarray:
    """Draw the mean intensity of each tissue, relative to white matter: (tissues,), float32.

    With `free` beyond the measured ranges, still darker than lesions.
    """
    means = np.array([rng.uniform(*TISSUE_RANGE[t]) for t in Tissue], dtype=np.float32)
    if free:
        brain = slice(Tissue.CORTEX, Tissue.CHOROID_PLEXUS)
        moved = means[brain] + rng.uniform(-0.12, 0.12, means[brain].shape)
        means[brain] = np.minimum(moved, _BRIGHTEST)
    return means


def _lesion_mimics(head: Head, image: np.ndarray, rng: np.random.Generator) -> None:
    """Brighten what looks like a lesion and is not one, in place.

    Of 40 healthy people all have a thin bright line around the third and fourth ventricle, 90 %
    frontal and 77 % occipital caps, half of them uneven (Neuroradiology 39:243, 1997); caps,
    septum, haze and flow in the ventricles are common at 3 T (Neema et al., AJNR 30:911, 2009).
    Flow is bright in the ventricles and basal cisterns (Lisanti et al., AJR 188:716, 2007). What
    lies around the lateral ventricles does not add up: the brightest counts.
    """
    shape, tissue, spacing = image.shape, head.tissue, head.spacing
    fine, coarse = (smooth_noise(shape, scale / spacing, rng) for scale in (9.0, 22.0))
    white = (tissue == Tissue.WHITE_MATTER) | (tissue == Tissue.DEEP_GREY)
    lateral, lower = (
        distance.astype(np.float32) * DISTANCE_STEP for distance in (head.to_lateral, head.to_lower)
    )
    uneven = np.clip(0.6 + 0.7 * fine, 0, 1.3)
    bright = np.clip(1 - lateral / rng.uniform(1.2, 3.0), 0, 1) * rng.uniform(0.0, 0.4) * uneven
    np.maximum(bright, _horn_caps(head, lateral, rng), out=bright)
    np.maximum(bright, _radiation(head, lateral, rng), out=bright)
    if rng.random() < _MIDLINE_SHARE:
        np.maximum(bright, _midline(head, lateral, rng) * uneven[:, ::-1], out=bright)
    np.maximum(bright, head.septum * rng.uniform(0.0, 0.45), out=bright)
    if rng.random() < 0.5:
        haze = np.exp(-((lateral / rng.uniform(6, 14)) ** 2))
        bright += haze * rng.uniform(0.02, 0.12) * np.clip(0.3 + coarse, 0, 1.5)
    image += bright * white
    line = np.clip(1 - lower / rng.uniform(1.2, 2.0), 0, 1) * rng.uniform(0.1, 0.5)
    image += line * (white | np.isin(tissue, (Tissue.BRAINSTEM, Tissue.CEREBELLAR_WHITE)))
    cortex = (tissue == Tissue.CORTEX) | (tissue == Tissue.CEREBELLAR_CORTEX)
    image += cortex * np.clip(coarse[::-1], 0, 2) * rng.uniform(0.0, 0.12)
    image += cortex * np.clip(fine[::-1] - 0.5, 0, 1.5) * rng.uniform(0.0, 0.2)
    if rng.random() < 0.6:
        flowing = (tissue >= Tissue.LATERAL_VENTRICLE) & (tissue < Tissue.CSF)
        flowing |= (tissue == Tissue.CSF) & (lower < _CISTERNS)
        flow = np.clip(fine - rng.uniform(0.7, 1.6), 0, 1)
        image += flowing * flow * rng.uniform(0.3, 1.2)


def _horn_caps(head: Head, lateral: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Caps of the frontal and occipital horns: bright white matter around the ventricles' ends.

    Left and right are drawn apart.
    """
    occupied = _ventricle_rows(head)
    caps = np.zeros(lateral.shape, np.float32)
    if not occupied.size:
        return caps
    middle = round(head.median_plane)
    for side in (slice(None, middle), slice(middle, None)):
        for end, share in ((occupied[0], 0.77), (occupied[-1], 0.9)):
            rows, near = _near_row(head, end, _CAP_REACH, rng.uniform(5, 10))
            width = rng.uniform(2.5, 6.0)
            strength = rng.uniform(0.05, 0.45) if rng.random() < share else 0.0
            caps[side, rows] += near * np.clip(1 - lateral[side, rows] / width, 0, 1) * strength
    return caps


def _ventricle_rows(head: Head) -> np.ndarray:
    return np.flatnonzero((head.tissue == Tissue.LATERAL_VENTRICLE).any(axis=(0, 2)))


def _near_row(head: Head, row: int, reach: float, width: float) -> tuple[slice, np.ndarray]:
    """Return the coronal rows within a reach (mm) of one, and a bell over them, ``(1, R, 1)``."""
    steps = round(reach / head.spacing)
    rows = slice(max(0, row - steps), min(row + steps + 1, head.tissue.shape[1]))
    away = (np.arange(rows.start, rows.stop, dtype=np.float32) - row) * head.spacing
    return rows, np.exp(-((away / width) ** 2))[None, :, None]


def _radiation(head: Head, lateral: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Optic radiation: a bright sheet along the outer wall of each occipital horn, and behind it.

    It fades behind the horn, towards the occipital pole, and above and below it. Left and right are
    nearly alike.
    """
    ventricle = head.tissue == Tissue.LATERAL_VENTRICLE
    streaks = np.zeros(lateral.shape, np.float32)
    strength, gap, width = rng.uniform(0.0, 0.4), rng.uniform(0.5, 3.0), rng.uniform(1.0, 2.5)
    behind, height = rng.uniform(10, 35), rng.uniform(7, 12)
    middle = round(head.median_plane)
    x = np.arange(ventricle.shape[0], dtype=np.float32)
    z = np.arange(ventricle.shape[2], dtype=np.float32)
    for side, half in ((-1, slice(0, middle)), (1, slice(middle, len(streaks)))):
        wall = _outer_wall(ventricle[half], side, head.spacing)
        if wall is None:
            continue
        tip, edge, level = wall
        outwards = (x[half, None] - half.start - edge) * side * head.spacing
        above = (z - level[:, None]) * head.spacing
        after = (np.arange(len(edge)) - tip) * head.spacing
        fading = np.clip(1 + after / behind, 0, 1) * np.clip(1 - after / _RADIATION_REACH, 0, 1)
        sheet = np.exp(-(((outwards - gap) / width) ** 2)) * fading * strength * rng.uniform(0.7, 1)
        streaks[half, : len(edge)] = sheet[:, :, None] * np.exp(-((above / height) ** 2))
    return streaks


def _outer_wall(
    ventricle: np.ndarray, side: int, spacing: float
) -> tuple[int, np.ndarray, np.ndarray] | None:
    """Return where the outer wall of an occipital horn is, row by row, and on behind its end.

    Of the ventricle of a `side` (-1: left; 1: right), (X, Y, Z) bool: the row of the horn's end; in
    each row, from the back of the head on, the outermost index along X and its index along Z. None
    where there is no ventricle.
    """
    filled = np.flatnonzero(ventricle.any(axis=(0, 2)))
    if not filled.size:
        return None
    filled = filled[filled < filled[0] + round(_RADIATION_REACH / spacing)]
    walls = []
    for row in filled:
        columns = np.flatnonzero(ventricle[:, row].any(axis=1))
        edge = columns[-1] if side > 0 else columns[0]
        walls.append((edge, np.flatnonzero(ventricle[edge, row]).mean()))
    rows = np.arange(filled[-1] + 1)
    lines = []
    for wall in np.array(walls, np.float32).T:
        wall = ndimage.uniform_filter1d(wall, max(round(5 / spacing), 1), mode="nearest")
        end = slice(0, round(15 / spacing) + 1)
        slope = np.polyfit(filled[end], wall[end], 1)[0] if filled.size > 1 else 0.0
        line = np.interp(rows, filled, wall)
        lines.append(line + np.minimum(rows - filled[0], 0) * np.clip(slope, -0.7, 0.7))
    return int(filled[0]), lines[0], lines[1]


def _midline(head: Head, lateral: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Splenium, callosum and fornix: bright between the ventricles, most at one place.

    In the splenium this is a sign of age (Neuroradiol J 19:301, 2006), and no normal finding.
    """
    along_head = _ventricle_rows(head)
    if not along_head.size:
        return np.zeros_like(lateral)
    x, y = (np.arange(n, dtype=np.float32) for n in lateral.shape[:2])
    place = rng.uniform(along_head[0], along_head[-1])
    away = np.abs(x - head.median_plane) * head.spacing
    beside = np.clip(2 - 2 * away / _MIDLINE_WIDTH, 0, 1)[:, None, None]
    near = np.exp(-(((y - place) * head.spacing / rng.uniform(8, 30)) ** 2))[None, :, None]
    reached: np.ndarray = np.clip(2 - lateral / rng.uniform(3, 8), 0, 1)
    return reached * beside * near * np.float32(rng.uniform(0.0, 0.3))


def flair(
    head: Head, lesions: LesionMap, rng: np.random.Generator, *, free: bool | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Render the FLAIR image of a (deformed) head with its lesions before its acquisition.

    `free` tissue means are taken by default in one sample of five. The image, (X, Y, Z) float32, is
    relative to white matter and not negative; beside it is how much of it the lesions add.
    """
    if free is None:
        free = bool(rng.random() < 0.2)
    means = tissue_means(rng, free=free)
    image = means[head.tissue]
    shape, spacing = image.shape, head.spacing
    if rng.random() < _NARROW_SULCI_SHARE:
        sulci = (head.tissue == Tissue.CSF) & (head.to_surface < 0)
        sulci &= head.to_cortex <= 2 / DISTANCE_STEP
        image[sulci] += rng.uniform(0.2, 0.9) * (means[Tissue.CORTEX] - means[Tissue.CSF])
    image += image * smooth_noise(shape, 3.5 / spacing, rng) * rng.uniform(0.01, 0.05)
    image += image * smooth_noise(shape, 16.0 / spacing, rng) * rng.uniform(0.01, 0.05)
    outside = head.tissue >= Tissue.SOFT_TISSUE
    mottled = 0.5 * smooth_noise(shape, 8.0 / spacing, rng)
    mottled += 0.4 * smooth_noise(shape, 3.0 / spacing, rng)
    image[outside] *= np.exp(mottled[outside])
    _lesion_mimics(head, image, rng)
    image = ndimage.gaussian_filter(image, rng.uniform(0.4, 0.8) / spacing)
    brightness = 1 + (lesions.brightness - 1) * rng.uniform(0.85, 1.15)
    texture = 1 + 0.06 * smooth_noise(shape, 3.0 / spacing, rng)
    # Lesions are not darker than the tissue; the fluid of a lacune is.
    least = np.where(lesions.brightness < _FLUID, 0.0, 0.95 * image)
    brightness = np.maximum(brightness * texture, least)
    contrast = lesions.profile * (brightness - image)
    return np.maximum(image + contrast, 0.0), contrast


@dataclass(frozen=True)
class Protocol:
    """A FLAIR protocol.

    `voxel` is the distance of the voxels along R, A, S (mm), largest along the slice axis,
    `thickness` that of a slice (mm), smaller when there is a gap. `noise` is the standard deviation
    of the noise, relative to white matter, `bias` that of the bias field's logarithm.
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
    With the volume on the coarser grid (float32) comes its exact voxel size (mm): the field of view
    holds a whole number of voxels.
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
    """Add Gibbs ringing and motion to a magnitude image, in the k-space of the slices.

    The axis across the slices is not encoded in k-space here. `motion` is the standard deviation of
    the shifts between blocks of phase-encoding lines (voxels), `kept` the share of k-space that was
    acquired along both axes of the slices: the rest is zero, which gives ringing at sharp edges.
    """
    read, phase = (axis for axis in range(3) if axis != slice_axis)
    spectrum = np.fft.fft2(image, axes=(read, phase)).astype(np.complex64)
    for axis in (read, phase):
        outer = np.abs(np.fft.fftfreq(image.shape[axis])) > kept / 2
        spectrum *= along(~outer, axis)
    if motion:
        lines = np.fft.fftfreq(image.shape[phase])
        blocks = np.sort(rng.uniform(-0.5, 0.5, int(rng.integers(2, 6))))
        shifts = rng.normal(0.0, motion, len(blocks) + 1)
        shifts[np.searchsorted(blocks, 0.0)] = 0.0  # the centre says where the head is
        turn = np.exp(-2j * np.pi * lines * shifts[np.searchsorted(blocks, lines)])
        spectrum *= along(turn.astype(np.complex64), phase)
    return np.abs(np.fft.ifft2(spectrum, axes=(read, phase))).astype(np.float32)


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
