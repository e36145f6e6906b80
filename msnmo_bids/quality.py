"""Is a scan a FLAIR, and good enough: figures measured on its images, and judged by one table.

Red withholds the diagnosis: what the network says of such an image means nothing.
Where a tissue is (white matter, cortex, ventricles) an atlas says that was brought to the scan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from msnmo_bids.lesions.regions import (
    ATLAS_MAPS,
    CORTEX,
    DEEP,
    VENTRICLE,
    atlas_on_grid,
    load_atlas,
)
from msnmo_bids.lesions.registration import BRIGHTEST
from msnmo_bids.preprocessing.geometry import THICK_SLICE_MM, box_around
from msnmo_bids.preprocessing.nifti_file import load_array
from msnmo_bids.preprocessing.skullstrip import (
    CUT_AREA_CM2,
    PLAUSIBLE_BRAIN_ML,
    largest_component,
    largest_cut_cm2,
)
from msnmo_bids.vocabulary import AMBER, GREEN, LEVELS, RED

_BRAIN_PRIOR = 0.5
_EVERY = 7  # voxels of the atlas's brain are enough for its coverage
_WHITE_PRIOR = 0.8  # share of deep white and grey matter in the atlas, to be taken as such
_CORTEX_PRIOR = 0.45
_VENTRICLE_PRIOR = 0.3
_TISSUE = (0.65, 1.6)  # of white matter; darker is fluid, brighter lesion or fat
_BRIGHT = 1.3  # of white matter
_MIDLINE_MM = 3.0  # on either side: belongs to no hemisphere
_HEAD = 0.25  # of white matter: brighter is not air
_NO_AIR = 1e-3  # of white matter: noise is brighter
_FEW_VOXELS = 200
_FITTED_VOXELS = 50_000
_FIT_MM = 2.0  # blur before a scan is compared with the atlas


@dataclass(frozen=True)
class Limit:
    """What is expected of a figure."""

    name: str  #: Key in the quality file.
    title: str  #: For readers.
    unit: str  #: Empty for ratios.
    #: Lowest and highest value that is not amber, and not red; None where there is no end.
    amber: tuple[float | None, float | None]
    red: tuple[float | None, float | None]
    why: str  #: Why the limit stands where it does.
    reason: str  #: What a red value means: the reason for withholding a diagnosis.
    digits: int = 2  #: Decimals to show.

    def level(self, value: float | None) -> str | None:
        """Return green, amber or red; None for a value that could not be measured.

        >>> limit = Limit("x", "X", "mm", (None, 3), (None, 10), "", "")
        >>> [limit.level(value) for value in (3, 4, 11, None)]
        ['green', 'amber', 'red', None]
        """
        if value is None:
            return None
        if _outside(value, self.red):
            return RED
        return AMBER if _outside(value, self.amber) else GREEN


#: The one table of limits. "Here" are the 15 real FLAIR and 5 real T1w that were at hand.
LIMITS = (
    Limit("SliceThickness", "Largest voxel side", "mm", (None, THICK_SLICE_MM), (None, 10.0),
          "Consensus protocols ask for at most 3 mm; trained for up to 8 mm",
          "the slices are too thick", 1),
    Limit("PixelSize", "Second largest voxel side", "mm", (None, 1.5), (None, 3.0),
          "Lesions of 3 mm need two voxels in the plane of the slices",
          "the pixels are too large", 2),
    Limit("Coverage", "Atlas brain within the image", "", (0.97, None), (0.93, None),
          "Real FLAIR here: 0.99 to 1.00",
          "a part of the brain is outside of the image", 2),
    Limit("AtlasFit", "Correlation with the atlas", "", (0.54, None), (0.46, None),
          "After registration; 27 real FLAIR here: 0.57 to 0.80. Seven of them upside down, turned "
          "or with two axes exchanged: -0.14 to 0.42; with front and back exchanged: 0.25 to 0.52",
          "the brain does not lie as the header says (check the orientation), or is not one", 2),
    Limit("CutArea", "Brain cut by an end of the image", "cm²", (None, CUT_AREA_CM2), (None, 120.0),
          "The medulla's section has 5 to 10 cm²; real FLAIR here: up to 62 cm² at the vertex",
          "the image cuts through the brain", 0),
    Limit("FluidToWhite", "Ventricular fluid to white matter", "", (None, 0.72), (None, 0.85),
          "Fluid is dark on FLAIR; darkest tenth of the ventricles, real FLAIR here: 0.08 to 0.5",
          "fluid is not dark: this does not look like a FLAIR", 2),
    Limit("BrightFluid", "Brightest tenth of the ventricles to white matter", "",
          (None, 1.6), (None, 1.8),
          "Bright on T2w; real FLAIR here: up to 1.53 where lesions touch the ventricles",
          "fluid is bright: this looks like a T2w, not a FLAIR", 2),
    Limit("GreyToWhite", "Cortex to white matter", "", (0.95, 1.25), (0.92, 1.4),
          "Cortex is brighter than white matter on FLAIR (real here: 1.02 to 1.10) and darker on "
          "T1w (real here: 0.85 to 0.88)",
          "cortex is not brighter than white matter as on a FLAIR (a T1w?)", 2),
    Limit("BrainVolume", "Brain mask", "ml", (850.0, 1950.0), PLAUSIBLE_BRAIN_ML,
          "Adults' brains with ventricles have 1000 to 1800 ml",
          "the brain mask is too small or too large", 0),
    Limit("LoosePieces", "Mask outside of its largest piece", "", (None, 0.01), (None, 0.10),
          "A brain is in one piece",
          "the brain mask is in pieces", 3),
    Limit("WhiteVariationBefore", "Variation of white matter before bias correction", "",
          (None, 0.25), (None, 0.50),
          "Robust coefficient of variation; real FLAIR here: 0.09 to 0.15",
          "brightness varies too much over the image", 3),
    Limit("WhiteVariation", "Variation of white matter after bias correction", "",
          (None, 0.17), (None, 0.30),
          "Robust coefficient of variation; real FLAIR here: 0.08 to 0.14",
          "white matter is too uneven, by noise, motion or bias field", 3),
    Limit("BiasFieldDetail", "Detail in the removed bias field", "", (None, 0.055), (None, 0.065),
          "S.d. of its logarithm beyond a cubic polynomial; coils have smooth fields; real FLAIR "
          "here: 0.015 to 0.049, simulated masses, infarcts and motion that the correction took "
          "for a field: 0.07 to 0.09",
          "the bias correction found what is not a bias field (mass, infarct or motion)", 3),
    Limit("Noise", "Noise in white matter", "", (None, 0.09), (None, 0.16),
          "From second differences in the slice, of white matter; real FLAIR here: 0.03 to 0.06",
          "there is too much noise", 3),
    Limit("Sharpness", "Sharpness", "1/mm", (0.30, None), (0.05, None),
          "Steepest twentieth of the gradients in the slice, of white matter; real FLAIR here: 0.34"
          " to 0.44, the same with simulated motion of 2 mm and more: 0.25. Simulated thick slices "
          "have 0.10, so red lies below",
          "the image is blurred, as by motion"),
    Limit("Ghost", "Air beside the head to white matter", "", (None, 0.10), (None, 0.25),
          "Ghosts of motion fall into the air; not measured where the air was set to 0, as in all "
          "real FLAIR here: the limits rest on simulated motion",
          "ghosts as of motion lie beside the head", 3),
    Limit("OneSidedBright", "Bright tissue, one side more than the other", "ml",
          (None, 12.0), (None, 35.0),
          "Lesions of MS and NMOSD are on both sides; real FLAIR here: "
          "under 3 ml, simulated large lesions of NMOSD or MS up to 25 ml, a simulated mass 81 ml",
          "a large bright area is in one half of the brain (mass, infarct or a very large lesion)",
          1),
    Limit("OneSidedDark", "Dark areas, one side more than the other", "ml",
          (None, 15.0), (None, 30.0),
          "Cavities after an infarct or an operation; real FLAIR here: up to 11 ml",
          "a large dark area is in one half of the brain (old infarct, cyst or operation)", 1),
)  # fmt: skip


def _outside(value: float, ends: tuple[float | None, float | None]) -> bool:
    low, high = ends
    return (low is not None and value < low) or (high is not None and value > high)


@dataclass(frozen=True)
class QualityImages:
    """What quality is measured on; all arrays in RAS order on one grid, (X, Y, Z)."""

    raw: np.ndarray  #: FLAIR as it came.
    corrected: np.ndarray  #: FLAIR after bias correction.
    brain: np.ndarray  #: bool: brain mask.
    zooms: Sequence[float]  #: (3,): voxel size (mm).
    #: Atlas probabilities of the lateral and third ventricle, of cortex, and of deep white and grey
    #: matter.
    ventricle: np.ndarray
    cortex: np.ndarray
    white: np.ndarray
    across: np.ndarray  #: Distance from the midsagittal plane in the atlas (mm, to the right).
    coverage: float  #: Share of the atlas's brain that lies within the image.
    atlas_fit: float  #: Correlation with the atlas that was brought to the scan.


_MAPS = ("raw", "corrected", "brain", "ventricle", "cortex", "white", "across")


def scan_quality(raw: Path, corrected: Path, mask: Path, to_mni: np.ndarray) -> dict[str, Any]:
    """Measure and judge a scan from its files, as `quality` does.

    FLAIR as it came and after bias correction, and brain mask, are on the same RAS grid; `to_mni`,
    (4, 4), brings an index to MNI mm (:func:`msnmo_bids.lesions.regions.locate_regions`).
    """
    image = nib.Nifti1Image.from_filename(raw)
    values, after = (load_array(path, np.float32) for path in (raw, corrected))
    brain = load_array(mask) > 0
    box, to_atlas = _box_and_way(brain, to_mni)
    prior = np.zeros((len(ATLAS_MAPS), *values.shape), np.float32)
    prior[:, *box] = atlas_on_grid(to_atlas, values[box].shape)
    x, y, z = np.ogrid[tuple(slice(size) for size in values.shape)]
    images = QualityImages(
        raw=values,
        corrected=after,
        brain=brain,
        zooms=[float(size) for size in nib.affines.voxel_sizes(image.affine)],
        ventricle=prior[VENTRICLE - 1],
        cortex=prior[CORTEX - 1],
        white=prior[DEEP - 1],
        across=to_mni[0, 0] * x + to_mni[0, 1] * y + to_mni[0, 2] * z + to_mni[0, 3],
        coverage=atlas_coverage(to_mni, values.shape),
        atlas_fit=atlas_fit(after, brain, to_mni),
    )
    return quality(images)


def atlas_coverage(to_mni: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return which share of the atlas's brain lies within a scan's field of view.

    `to_mni` (4, 4) brings an index of the scan, of that shape, to MNI mm.
    """
    maps, _, atlas_affine = load_atlas()
    brain = np.argwhere(maps.sum(axis=0) > _BRAIN_PRIOR)[::_EVERY]
    places = nib.affines.apply_affine(np.linalg.inv(to_mni) @ atlas_affine, brain)
    within = (places > -0.5) & (places < np.asarray(shape) - 0.5)
    return float(within.all(axis=1).mean())


def _box_and_way(brain: np.ndarray, to_mni: np.ndarray) -> tuple[tuple[slice, ...], np.ndarray]:
    """Return the box of a brain, and the way from its index to that of the atlas, (4, 4)."""
    box = box_around(brain, 1)
    start = nib.affines.from_matvec(np.eye(3), [part.start for part in box])
    _, _, atlas_affine = load_atlas()
    return box, np.linalg.inv(atlas_affine) @ to_mni @ start


def atlas_fit(corrected: np.ndarray, brain: np.ndarray, to_mni: np.ndarray) -> float:
    """Return how well the atlas's FLAIR, brought to a scan, correlates with it in both brains.

    A brain that lies otherwise than its header says (upside down, slices as if they were rows) fits
    badly. Left and right look alike, front and back nearly so. It is 0 where nothing overlaps. The
    corrected FLAIR and the brain mask (bool) are (X, Y, Z), `to_mni` (4, 4) brings an index to MNI
    mm.
    """
    box, to_atlas = _box_and_way(brain, to_mni)
    values = corrected[box]
    blur = _FIT_MM / nib.affines.voxel_sizes(to_mni)
    _, flair, _ = load_atlas()
    moved = ndimage.affine_transform(flair, to_atlas, output_shape=values.shape, order=1)
    both = brain[box] & (moved > 0) & (values > 0)  # not what stripping left beside the brain
    if np.count_nonzero(both) < _FEW_VOXELS:
        return 0.0
    pair = [
        ndimage.gaussian_filter(np.minimum(image / np.median(image[both]), BRIGHTEST), blur)[both]
        for image in (values, moved)
    ]
    return float(np.corrcoef(*pair)[0, 1]) if min(map(np.ptp, pair)) > 0 else 0.0


def quality(images: QualityImages) -> dict[str, Any]:
    """Measure a scan and judge it by `LIMITS`.

    Returns
    -------
    dict
        ``Level`` (the worst of all), ``Reasons`` (of what is red), ``Contrast`` (what the image
        looks like) and ``Figures``: by name ``Value``, ``Level``, ``Unit`` and the limits. A value
        that cannot be measured on this image is None and counts for nothing.
    """
    values = measure(images)
    figures: dict[str, dict[str, Any]] = {}
    for limit in LIMITS:
        value = values.get(limit.name)
        value = None if value is None or not np.isfinite(value) else round(float(value), 4)
        figures[limit.name] = {
            "Value": value,
            "Level": limit.level(value),
            "Unit": limit.unit,
            "AmberOutside": list(limit.amber),
            "RedOutside": list(limit.red),
        }
    found = [figure["Level"] for figure in figures.values() if figure["Level"]]
    return {
        "Level": max(found, key=LEVELS.index, default=RED),
        "Reasons": [limit.reason for limit in LIMITS if figures[limit.name]["Level"] == RED],
        "Contrast": contrast(figures),
        "Figures": figures,
    }


def contrast(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Say what the contrast looks like by the figures of `quality`: FLAIR, T1w, T2w or unknown."""
    fluid, bright, grey = (
        figures[name]["Value"] for name in ("FluidToWhite", "BrightFluid", "GreyToWhite")
    )
    if fluid is None or grey is None:
        return "unknown"
    reds = {name for name, figure in figures.items() if figure["Level"] == RED}
    if "BrightFluid" in reds:
        return "T2w" if bright > 1 else "unknown"
    if "GreyToWhite" in reds:
        return "T1w" if grey < 1 and fluid < 1 else "unknown"
    return "unknown" if "FluidToWhite" in reds else "FLAIR"


def measure(images: QualityImages) -> dict[str, float | None]:
    """Measure all figures of `LIMITS`, by name; None for what this image does not tell."""
    sizes = sorted(float(size) for size in images.zooms)
    voxel_ml = float(np.prod(images.zooms)) / 1000
    values: dict[str, float | None] = {
        "SliceThickness": sizes[2],
        "PixelSize": sizes[1],
        "Coverage": images.coverage,
        "AtlasFit": images.atlas_fit,
        "CutArea": largest_cut_cm2(images.brain, images.zooms),
        "BrainVolume": np.count_nonzero(images.brain) * voxel_ml,
        "LoosePieces": loose_share(images.brain),
    }
    box = box_around(images.brain, 1)
    within = replace(images, **{name: getattr(images, name)[box] for name in _MAPS})
    deep = within.brain & (within.white > _WHITE_PRIOR)
    if np.count_nonzero(deep) < _FEW_VOXELS:
        return values
    white = float(np.median(within.corrected[deep]))
    if white <= 0:
        return values
    relative = within.corrected / white
    return (
        values
        | _contrasts(within, relative)
        | _evenness(within, deep)
        | _texture(within, relative, deep)
        | {"BiasFieldDetail": bias_field_detail(within.raw, within.corrected, within.brain)}
        | {"Ghost": ghost(images.raw, images.brain, float(np.median(within.raw[deep])))}
        | _sides(within, relative, voxel_ml)
    )


def loose_share(brain: np.ndarray) -> float | None:
    """Return which share of a mask lies outside of its largest piece (26 neighbours)."""
    total = np.count_nonzero(brain)
    return 1 - np.count_nonzero(largest_component(brain)) / total if total else None


def ghost(raw: np.ndarray, brain: np.ndarray, white: float) -> float | None:
    """Return how bright the air beside the brain's slices is, relative to white matter.

    It is the 95th percentile in the raw FLAIR; None where there is no skull, or where the scanner
    or a defacing program set the air to 0. Image and mask are (X, Y, Z).
    """
    beside = brain.any(axis=(0, 1))
    head = ndimage.binary_fill_holes(ndimage.binary_opening(raw > _HEAD * white))
    air = raw[..., beside][~ndimage.binary_dilation(head, iterations=4)[..., beside]]
    if air.size < _FEW_VOXELS or np.count_nonzero(air <= air.min()) > 0.5 * air.size:
        return None
    beyond = float(np.percentile(air, 95) / white)
    return beyond if beyond > _NO_AIR else None


def bias_field_detail(raw: np.ndarray, corrected: np.ndarray, brain: np.ndarray) -> float | None:
    """Return how much of the removed bias field no smooth field has.

    A coil's field is smooth. A mass, an infarct or heavy motion leave a bump in the field that N4
    finds, and are flattened with it: then they are no longer bright in the corrected image.
    Returned is the standard deviation of the field's logarithm after a cubic polynomial was taken
    off; None where the brain is too small. The images and the mask are (X, Y, Z).
    """
    inside = brain & (raw > 0) & (corrected > 0)
    if np.count_nonzero(inside) < _FEW_VOXELS:
        return None
    field = np.log(raw[inside] / corrected[inside])
    some = slice(None, None, max(1, len(field) // _FITTED_VOXELS))
    field, place = field[some], np.argwhere(inside)[some] / inside.shape * 2 - 1
    powers = [power for power in np.ndindex(4, 4, 4) if sum(power) <= 3]
    terms = np.stack([np.prod(place**power, axis=1) for power in powers], axis=1)
    weights, *_ = np.linalg.lstsq(terms, field, rcond=None)
    return float(np.std(field - terms @ weights))


def _contrasts(images: QualityImages, relative: np.ndarray) -> dict[str, float | None]:
    """Fluid and cortex against white matter."""
    fluid = relative[images.brain & (images.ventricle > _VENTRICLE_PRIOR)]
    cortex = relative[images.brain & (images.cortex > _CORTEX_PRIOR)]
    cortex = cortex[(cortex > _TISSUE[0]) & (cortex < _TISSUE[1])]
    enough = fluid.size >= _FEW_VOXELS
    return {
        "FluidToWhite": float(np.percentile(fluid, 10)) if enough else None,
        "BrightFluid": float(np.percentile(fluid, 90)) if enough else None,
        "GreyToWhite": float(np.median(cortex)) if cortex.size >= _FEW_VOXELS else None,
    }


def _evenness(images: QualityImages, deep: np.ndarray) -> dict[str, float | None]:
    """Robust coefficient of variation of white matter before and after bias correction."""
    found: dict[str, float | None] = {}
    for name, image in (("WhiteVariationBefore", images.raw), ("WhiteVariation", images.corrected)):
        median = float(np.median(image[deep]))
        found[name] = _spread(image[deep] - median) / median if median > 0 else None
    return found


def _texture(
    images: QualityImages, relative: np.ndarray, deep: np.ndarray
) -> dict[str, float | None]:
    """Noise and sharpness within the slices."""
    core, inside = ndimage.binary_erosion(deep), ndimage.binary_erosion(images.brain, iterations=3)
    if min(np.count_nonzero(core), np.count_nonzero(inside)) < _FEW_VOXELS:
        return {"Noise": None, "Sharpness": None}
    laplacian, squares = 4 * relative, np.zeros_like(relative)
    for axis in np.delete(np.arange(3), int(np.argmax(images.zooms))):
        after, before = np.roll(relative, -1, axis), np.roll(relative, 1, axis)
        laplacian = laplacian - after - before
        squares += ((after - before) / (2 * images.zooms[axis])) ** 2
    return {
        # White noise of s.d. 1 has a Laplacian of s.d. sqrt(20).
        "Noise": _spread(laplacian[core]) / np.sqrt(20),
        "Sharpness": float(np.sqrt(np.percentile(squares[inside], 95))),
    }


def _sides(images: QualityImages, relative: np.ndarray, voxel_ml: float) -> dict[str, float | None]:
    """How much more bright, and dark, tissue (ml) one half of the brain has."""
    right, left = images.across > _MIDLINE_MM, images.across < -_MIDLINE_MM

    def excess(where: np.ndarray) -> float:
        return abs(np.count_nonzero(where & right) - np.count_nonzero(where & left)) * voxel_ml

    bright = ndimage.binary_opening(images.brain & (relative > _BRIGHT))
    dark = images.brain & (relative < _TISSUE[0])
    return {"OneSidedBright": excess(bright), "OneSidedDark": excess(dark)}


def _spread(values: np.ndarray) -> float:
    """Return the s.d. of the bulk of values around 0 (1.4826 times the median magnitude)."""
    return float(1.4826 * np.median(np.abs(values)))
