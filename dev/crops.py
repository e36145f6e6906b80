"""Crops of real and simulated brains, as different as scanners make them.

Every random decision of a crop comes from the generator of its sample, so that a training that was
stopped goes on as if nothing had happened. Intensities are in units of the "robust" normalisation
(:func:`msnmo_bids.preprocessing.cube.normalize`), background is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from dev.brains import Brain
from msnmo_bids.labelled.sample_file import Sample

T = TypeVar("T")

_FLUID = -1.2  # darker than this is fluid: no lesion is carried there
_SEEN = 0.35  # a carried lesion's voxel is lesion where it adds more than this
#: Mean contrast of the lesions of a simulated brain; in a head of even tissue they are bright.
_LESION_LEVELS = (0.6, 5.0)


@dataclass(frozen=True)
class CropSettings:
    """How crops are drawn; probabilities unless said otherwise.

    Parameters
    ----------
    side : int
        Side of the crop (voxels).
    simulated : float
        Share of the crops from simulated brains.
    on_lesion : float
        Crops around a lesion, where there is one.
    lower : float
        How often a lesion in the lower half of the cube is drawn, relative to others: in temporal
        lobes, poles, brainstem, cerebellum and at the lower ventricles most are missed.
    emptied : float
        Crops whose lesions are taken out: what a simulated brain's lesions add is subtracted, those
        of a real head are filled with the tissue around them.
    carried : float
        Real lesions of another person carried over to the same place.
    added : float
        Simulated lesions added to a real head.
    faded : float
        Lesions of a real head darkened or brightened.
    leaked : float
        Bright tissue beside the brain that the brain mask left in.
    thick, blurred, sharpened : float
        Slices made thicker along one axis; blur; unsharp masking.
    contrast, noise, bias : float
        Gain, offset and gamma; noise; a smooth field left by the bias correction.
    mirrored : float
        Left and right exchanged.
    """

    side: int = 64
    simulated: float = 0.45
    on_lesion: float = 0.7
    lower: float = 3.0
    emptied: float = 0.25
    carried: float = 0.35
    added: float = 0.3
    faded: float = 0.35
    leaked: float = 0.15
    thick: float = 0.25
    blurred: float = 0.3
    sharpened: float = 0.25
    contrast: float = 0.8
    noise: float = 0.5
    bias: float = 0.4
    mirrored: float = 0.5


class CropSource:
    """Draws crops (a `SampleSource` of the trainer).

    Parameters
    ----------
    real : sequence of sequence of Brain
        The scans of each real person that may be used; may be empty.
    simulated : sequence of Brain
        Simulated brains; may be read when they are asked for.
    settings : CropSettings, optional
        How crops are drawn.
    weights : sequence of float, optional
        How often each real person is drawn, relative to the others.
    """

    def __init__(
        self,
        real: Sequence[Sequence[Brain]],
        simulated: Sequence[Brain],
        settings: CropSettings | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.real, self.simulated = real, simulated
        self.settings = settings or CropSettings()
        chance = np.ones(len(real)) if weights is None else np.asarray(weights, float)
        self._chance = chance / chance.sum() if len(real) else chance

    def rebuild(self, step: int) -> None:
        """Need nothing: a crop depends on its own generator alone."""

    def advance(self, step: int, rng: np.random.Generator) -> None:
        """Need nothing."""

    def draw(self, rng: np.random.Generator) -> Sample:
        """Return a crop with its lesion mask."""
        settings = self.settings
        person = None
        if not self.real or rng.random() < settings.simulated:
            brain = _any(self.simulated, rng)
        else:
            person = int(rng.choice(len(self.real), p=self._chance))
            scans = self.real[person]
            brain = _any(scans, rng)
        window = _Window(brain, settings, rng)
        image, lesions, inside, contrast = window.take_brain(brain)
        if rng.random() < settings.emptied:
            image = _emptied(image, lesions, inside, contrast, rng)
            lesions = torch.zeros_like(lesions)
        else:
            if contrast is not None:
                image = _at_level(image, lesions, contrast, rng)
            elif rng.random() < settings.faded:
                image = _faded(image, lesions, inside, rng)
            image, lesions = self._with_others(image, lesions, inside, window, person, rng)
        if rng.random() < settings.leaked:
            image, inside = _leak(image, inside, rng)
        image, lesions = _degrade(image, lesions, settings, rng)
        image = _recoloured(image, settings, rng) * inside
        mask = ((lesions >= 0.5) & inside).to(torch.uint8)
        return Sample(image.numpy(), mask.numpy(), None)

    def _with_others(
        self,
        image: Tensor,
        lesions: Tensor,
        inside: Tensor,
        window: _Window,
        person: int | None,
        rng: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Carry over or add lesions that are not the brain's own, or leave it as it is."""
        if person is not None and rng.random() < self.settings.added:
            return self._add(image, lesions, inside, window, rng)
        if self.real and rng.random() < self.settings.carried:
            return self._carry(image, lesions, inside, window, person, rng)
        return image, lesions

    def _carry(
        self,
        image: Tensor,
        lesions: Tensor,
        inside: Tensor,
        window: _Window,
        person: int | None,
        rng: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Carry the lesions of another person to the same place (CarveMix, Zhang et al. 2021)."""
        others = [number for number in range(len(self.real)) if number != person]
        if not others:
            return image, lesions
        scans = self.real[others[rng.integers(len(others))]]
        donor = _any(scans, rng)
        if not donor.lesions[window.box].any():
            return image, lesions
        theirs, values = window.take(donor.lesions, donor.image)
        if theirs.max() < 0.5:
            return image, lesions
        near = (_smooth(theirs, 5) > 0.02).float() * (values != 0) * (image > _FLUID) * inside
        ring = (near > 0) & (theirs < 0.1) & (lesions < 0.1)
        if ring.sum() < 20:
            return image, lesions
        shift = image[ring].median() - values[ring].median()
        share = _smooth(near, 3) * (image > _FLUID) * inside
        image = image + share * (values + shift - image)
        return image, torch.where(near > 0, theirs, lesions)

    def _add(
        self,
        image: Tensor,
        lesions: Tensor,
        inside: Tensor,
        window: _Window,
        rng: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Add the lesions of a simulated brain to a real head."""
        if not len(self.simulated):
            return image, lesions
        donor = _any(self.simulated, rng)
        if donor.contrast is None:
            return image, lesions
        if not donor.lesions[window.box].any():
            return image, lesions
        theirs, contrast = window.take(donor.lesions, donor.contrast)
        chosen = theirs >= 0.5
        if not chosen.any():
            return image, lesions
        factor = _to_real_contrast(contrast, chosen, rng)
        tissue = ((image - _FLUID) / 0.5).clamp(0, 1) * inside
        added = (factor * contrast).clamp(min=0) * tissue * (lesions < 0.3)
        return image + added, torch.where(chosen & (added > _SEEN), theirs, lesions)


def _any(items: Sequence[T], rng: np.random.Generator) -> T:
    return items[int(rng.integers(len(items)))]


class _Window:
    """Where a crop lies in a brain: a box, turned, stretched and perhaps mirrored."""

    def __init__(self, brain: Brain, settings: CropSettings, rng: np.random.Generator) -> None:
        shape = np.array(brain.image.shape)
        self.side = side = settings.side
        centre = _centre(brain, settings, rng) + rng.integers(-side // 4, side // 4 + 1, 3)
        zoom = np.exp(rng.uniform(-0.22, 0.22) + rng.uniform(-0.1, 0.1, 3))
        angles = np.deg2rad(rng.uniform(-1, 1, 3) * (10, 10, 20))
        matrix = _rotation(angles) @ np.diag(zoom)
        mirrored = rng.random() < settings.mirrored
        corners = np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1) * (side - 1) / 2
        reach = np.abs(matrix @ corners).max(axis=1)
        centre = np.clip(
            centre, np.minimum(reach, shape / 2), np.maximum(shape - 1 - reach, shape / 2)
        )
        low = np.maximum(np.floor(centre - reach).astype(int) - 1, 0)
        high = np.minimum(np.ceil(centre + reach).astype(int) + 2, shape)
        self.box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        # index of the crop -> index of the box, both from their centres, as grid_sample wants it
        if mirrored:
            matrix[:, 0] *= -1
        size = high - low
        scaled = matrix * (side - 1) / 2 / ((size - 1) / 2)[:, None]
        offset = (centre - low - (size - 1) / 2) / ((size - 1) / 2)
        theta = np.concatenate([scaled, offset[:, None]], axis=1)[::-1]
        theta = np.concatenate([theta[:, 2::-1], theta[:, 3:]], axis=1)
        self.grid = F.affine_grid(
            torch.from_numpy(np.ascontiguousarray(theta, dtype=np.float32))[None],
            [1, 1, side, side, side],
            align_corners=True,
        )

    def take(self, *arrays: np.ndarray) -> Tensor:
        """Sample arrays of the brain's shape, (arrays, side, side, side) float32."""
        parts = np.stack([array[self.box] for array in arrays]).astype(np.float32)
        return F.grid_sample(
            torch.from_numpy(parts)[None], self.grid, padding_mode="zeros", align_corners=True
        )[0]

    def take_brain(self, brain: Brain) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Sample image, lesions, where there is brain (bool), and what the lesions add."""
        parts = [brain.image[self.box], brain.lesions[self.box]]
        parts.append(parts[0] != 0)
        if brain.contrast is not None:
            parts.append(brain.contrast[self.box])
        volume = torch.from_numpy(np.stack([part.astype(np.float32) for part in parts]))
        image, lesions, inside, *contrast = F.grid_sample(
            volume[None], self.grid, padding_mode="zeros", align_corners=True
        )[0]
        return image, lesions, inside >= 0.5, contrast[0] if contrast else None


def _rotation(angles: np.ndarray) -> np.ndarray:
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = (other for other in range(3) if other != axis)
        turn = np.eye(3)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def _centre(brain: Brain, settings: CropSettings, rng: np.random.Generator) -> np.ndarray:
    """Draw the middle of a crop: a lesion, small ones nearly as often as large ones, or brain."""
    if len(brain.centres) and rng.random() < settings.on_lesion:
        weights = brain.sizes.astype(float) ** 0.3
        weights[brain.centres[:, 2] < brain.image.shape[2] / 2] *= settings.lower
        return brain.centres[rng.choice(len(weights), p=weights / weights.sum())].astype(int)
    shape = np.array(brain.image.shape)
    for _ in range(20):
        place = rng.integers(0, shape)
        if brain.image[tuple(place)] != 0:
            return place
    return shape // 2


def _emptied(
    image: Tensor,
    lesions: Tensor,
    inside: Tensor,
    contrast: Tensor | None,
    rng: np.random.Generator,
) -> Tensor:
    """Take the lesions out of a crop."""
    if contrast is not None:
        return image - contrast
    near = (_smooth(lesions, 5) > 0.02) & inside
    clean = (inside & ~near & (image > -0.5)).float()
    if not near.any() or clean.sum() < 100:
        return image
    weight = _smooth(clean, 13)
    around = _smooth(image * clean, 13) / weight.clamp(min=0.01)
    level = torch.where(weight > 0.01, around, image[clean > 0].median())
    spread = (image - level)[clean > 0].std() * _noise_field(image.shape, 3, rng)
    share = _smooth(near.float(), 3)
    filled = torch.minimum(level + 0.7 * spread, image + 0.3)
    return torch.where(near, image + share * (filled - image), image)


def _at_level(image: Tensor, lesions: Tensor, contrast: Tensor, rng: np.random.Generator) -> Tensor:
    """Bring the lesions of a simulated brain to a contrast that real ones have."""
    chosen = lesions >= 0.5
    if not chosen.any():
        return image
    return image + (_to_real_contrast(contrast, chosen, rng, most=3.0) - 1) * contrast


def _to_real_contrast(
    contrast: Tensor, lesions: Tensor, rng: np.random.Generator, most: float = math.inf
) -> Tensor:
    """Draw the uneven factor that brings simulated lesions to a mean contrast of real ones."""
    level = float(contrast[lesions].mean().clamp(min=0.1))
    factor = min(math.exp(rng.uniform(*np.log(_LESION_LEVELS))) / level, most)
    return factor * (1 + rng.uniform(0, 0.35) * _noise_field(contrast.shape, 8, rng))


def _faded(image: Tensor, lesions: Tensor, inside: Tensor, rng: np.random.Generator) -> Tensor:
    """Darken or brighten the lesions of a real head, relative to the tissue around them."""
    around = inside & (lesions < 0.1) & (image > -0.8)
    if (lesions >= 0.5).sum() < 1 or around.sum() < 100:
        return image
    above = (image - image[around].median()).clamp(min=0)
    return image + _smooth(lesions, 3) * above * (math.exp(rng.uniform(-0.7, 0.7)) - 1)


def _leak(image: Tensor, inside: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Add what skull stripping leaves in: a thin rim of the brain, in part, brighter than tissue.

    Thick blobs as dark as tissue or as bright as lesions teach that large bright regions are not
    lesions (``docs/experiments/leaks-and-heavy-loads.md``).
    """
    reach = int(rng.choice((3, 5, 9)))
    near = (_smooth(inside.float(), reach) > 0.02) & ~inside
    field = _noise_field(image.shape, int(rng.choice((8, 16))), rng)
    left = near & (field > rng.uniform(0, 1.2))
    texture = 1 + rng.uniform(0, 0.6) * _noise_field(image.shape, 4, rng)
    return torch.where(left, float(rng.uniform(3, 7)) * texture, image), inside | left


def _degrade(
    image: Tensor, lesions: Tensor, settings: CropSettings, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Make slices thicker, blur, sharpen."""
    if rng.random() < settings.thick:
        axis, thickness = int(rng.choice(3, p=(0.1, 0.1, 0.8))), int(rng.integers(2, 8))
        image, lesions = (_thick(values, axis, thickness) for values in (image, lesions))
        lesions = lesions + 0.05
    if rng.random() < settings.blurred:
        share = rng.uniform(0.2, 1.0)
        image = image + share * (_smooth(image, 3) - image)
    if rng.random() < settings.sharpened:
        image = image + rng.uniform(0.1, 0.8) * (image - _smooth(image, 3))
    return image, lesions


def _recoloured(image: Tensor, settings: CropSettings, rng: np.random.Generator) -> Tensor:
    """Change gamma, gain, offset, the bias left, and the noise."""
    if rng.random() < settings.contrast:
        power = np.exp(rng.uniform(-0.35, 0.35))
        image = torch.where(image > 0, (image.clamp(min=0) + 1e-6) ** power, image)
        image = image * float(np.exp(rng.uniform(-0.4, 0.4))) + float(rng.uniform(-0.3, 0.3))
        image = torch.where(image < 0, image * float(np.exp(rng.uniform(-0.3, 0.3))), image)
    if rng.random() < settings.bias:
        image = image + float(rng.uniform(0.05, 0.4)) * _noise_field(image.shape, 32, rng)
    if rng.random() < settings.noise:
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(image.shape, generator=generator)
        if rng.random() < 0.4:
            noise = 2 * _smooth(noise, 3)
        image = image + float(rng.uniform(0.02, 0.35)) * noise
    return image


def _smooth(values: Tensor, width: int) -> Tensor:
    """Return the mean over a box of `width` voxels along each axis."""
    return torch.from_numpy(ndimage.uniform_filter(values.numpy(), width, mode="nearest"))


def _thick(values: Tensor, axis: int, thickness: int) -> Tensor:
    """Average over slices along an axis, then interpolate between them."""
    count = max(values.shape[axis] // thickness, 2)
    first, second, third = (
        count if number == axis else size for number, size in enumerate(values.shape)
    )
    thin = F.adaptive_avg_pool3d(values[None, None], (first, second, third))
    return F.interpolate(thin, values.shape, mode="trilinear", align_corners=False)[0, 0]


def _noise_field(shape: torch.Size, wavelength: int, rng: np.random.Generator) -> Tensor:
    """Return a smooth random field, s.d. about 1 at its nodes."""
    nodes = [max(side // wavelength, 2) for side in shape]
    coarse = torch.from_numpy(rng.standard_normal(nodes, dtype=np.float32))
    return F.interpolate(coarse[None, None], shape, mode="trilinear", align_corners=True)[0, 0]
