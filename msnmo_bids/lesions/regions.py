"""Where a lesion lies: periventricular, infratentorial, juxtacortical or deep.

A probabilistic atlas, averaged from whole-head label maps in MNI space, is brought to the scan by
an affine registration of FLAIR to FLAIR; the scan's own dark fluid then corrects the ventricles.
An affine map does not follow the folds of a cortex, so regions are approximate.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

REGIONS = ("periventricular", "infratentorial", "juxtacortical", "deep")

OUTSIDE, VENTRICLE, INFRATENTORIAL, CORTEX, DEEP = range(5)
#: Maps of the atlas, in the order of the codes 1 to 4.
ATLAS_MAPS = ("ventricle", "infratentorial", "cortex", "deep")

_FLUID = 0.65  # fluid is darker than this share of the brain's median
_PRIOR_REACH = 0.05  # fluid counts as ventricle where the atlas gives it this probability
_CORTEX_SHARE = 0.2  # of a lesion and its neighbourhood in the cortex, to be juxtacortical
_THICK = 2.5  # voxels longer than this (mm) are not dilated across
_REGISTRATION_SPACING = 3.0  # mm


@lru_cache(maxsize=1)
def load_atlas() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the atlas.

    Returns
    -------
    maps : ndarray, (4, X, Y, Z), float32
        Probability of the `ATLAS_MAPS`.
    flair : ndarray, (X, Y, Z), float32
        Mean FLAIR contrast of the brain, 0 outside.
    affine : ndarray, (4, 4)
        Index to MNI mm.
    """
    with (
        (files("msnmo_bids.lesions") / "data" / "region_atlas.npz").open("rb") as stream,
        np.load(stream, allow_pickle=False) as stored,
    ):
        maps = stored["maps"].astype(np.float32) / 255
        return maps, stored["flair"].astype(np.float32) / 128, stored["affine"]


def region_map(flair: Path, brain_mask: Path, *, n_threads: int = 1, seed: int = 0) -> np.ndarray:
    """Map the regions of a scan.

    Parameters
    ----------
    flair : Path
        Preprocessed FLAIR, RAS, 0 outside of the brain.
    brain_mask : Path
        Brain mask on the same grid.
    n_threads : int
        Threads of ITK.
    seed : int
        Seed of the registration.

    Returns
    -------
    ndarray, (X, Y, Z), int8
        0 outside, 1 lateral or third ventricle, 2 infratentorial, 3 cortex, 4 deep white and
        grey matter.
    """
    image = nib.Nifti1Image.from_filename(flair)
    values = np.asarray(image.dataobj, dtype=np.float32)
    brain = np.asarray(nib.Nifti1Image.from_filename(brain_mask).dataobj) > 0
    matrix = register_atlas(values, image.affine, n_threads=n_threads, seed=seed)
    return refine(atlas_on_grid(matrix, values.shape), values, brain)


def register_atlas(
    values: np.ndarray, affine: np.ndarray, *, n_threads: int = 1, seed: int = 0
) -> np.ndarray:
    """Register the atlas's FLAIR to a scan by an affine map (ANTs, mutual information).

    Parameters
    ----------
    values : ndarray, (X, Y, Z), float32
        FLAIR without skull, RAS.
    affine : ndarray, (4, 4)
        Index to RAS mm.
    n_threads : int
        Threads of ITK.
    seed : int
        Seed of the sampling.

    Returns
    -------
    ndarray, (4, 4)
        Index of the scan to index of the atlas.
    """
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(n_threads)
    import ants

    _, atlas, atlas_affine = load_atlas()
    zooms = nib.affines.voxel_sizes(affine)
    shape = np.maximum(np.round(np.asarray(values.shape) * zooms / _REGISTRATION_SPACING), 4)
    factor = shape / values.shape
    coarse = ndimage.zoom(
        _smoothed(values, factor), factor, order=1, grid_mode=True, mode="nearest"
    )
    top = float(np.quantile(coarse[coarse > 0], 0.995)) if (coarse > 0).any() else 1.0
    spacing = zooms * values.shape / coarse.shape
    fixed = ants.from_numpy(np.clip(coarse, 0, top), spacing=tuple(spacing))
    moving = ants.from_numpy(atlas, spacing=tuple(nib.affines.voxel_sizes(atlas_affine)))
    # Both arrays are RAS; in their own corner-based coordinates the heads overlap after
    # ANTs' alignment of the centres of mass, whatever the scanner's origin and tilt.
    # Only the package-wide setting reaches ANTs, `registration` ignores its argument for a seed.
    ants.config.set_ants_deterministic(on=True, seed_value=seed + 1)
    result = ants.registration(
        fixed,
        moving,
        type_of_transform="Affine",
        aff_metric="mattes",
        aff_iterations=(200, 100, 50, 10),
        aff_shrink_factors=(4, 3, 2, 1),
        aff_smoothing_sigmas=(3, 2, 1, 0),
        aff_random_sampling_rate=0.4,
    )
    ants.config.set_ants_deterministic(on=False, seed_value=None)
    transform = ants.read_transform(result["fwdtransforms"][0])
    points = np.vstack([np.zeros(3), np.eye(3) * 100])
    moved = np.array([ants.apply_ants_transform_to_point(transform, p) for p in points])
    for file in {*result["fwdtransforms"], *result["invtransforms"]}:
        Path(file).unlink(missing_ok=True)
    world = np.eye(4)
    world[:3, 3] = moved[0]
    world[:3, :3] = (moved[1:] - moved[0]).T / 100
    to_physical = np.diag([*(spacing), 1.0]) @ _index_map(values.shape, coarse.shape)
    from_physical = np.diag([*(1 / nib.affines.voxel_sizes(atlas_affine)), 1.0])
    return from_physical @ world @ to_physical


def _smoothed(values: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Blur what is about to be shrunk."""
    return ndimage.gaussian_filter(values, np.where(factor < 1, 0.4 / factor, 0.0))


def _index_map(fine: Sequence[int], coarse: Sequence[int]) -> np.ndarray:
    """Index of a grid to index of a resized grid with the same field of view, (4, 4)."""
    scale = np.asarray(coarse) / np.asarray(fine)
    matrix = np.diag([*scale, 1.0])
    matrix[:3, 3] = 0.5 * scale - 0.5
    return matrix


def atlas_on_grid(matrix: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Sample the atlas's probabilities on a scan's grid.

    Parameters
    ----------
    matrix : ndarray, (4, 4)
        Index of the scan to index of the atlas.
    shape : sequence of int, (3,)
        Shape of the scan.

    Returns
    -------
    ndarray, (4, X, Y, Z), float32
    """
    maps, _, _ = load_atlas()
    return np.stack(
        [
            ndimage.affine_transform(
                m, matrix[:3, :3], matrix[:3, 3], output_shape=tuple(shape), order=1
            )
            for m in maps
        ]
    )


def refine(prior: np.ndarray, values: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Turn atlas probabilities into region codes, the ventricles by the scan's dark fluid.

    Parameters
    ----------
    prior : ndarray, (4, X, Y, Z)
        Probabilities of the `ATLAS_MAPS` on the scan's grid.
    values : ndarray, (X, Y, Z)
        FLAIR.
    brain : ndarray, (X, Y, Z)
        Brain mask, bool.

    Returns
    -------
    ndarray, (X, Y, Z), int8
        Codes as in `region_map`.
    """
    codes = np.zeros(values.shape, np.int8)
    likeliest = prior[INFRATENTORIAL - 1 :].argmax(axis=0) + INFRATENTORIAL
    # Beyond the atlas, where it knows no class, lies what skull stripping left at the surface.
    codes[brain] = np.where(prior.any(axis=0), likeliest, CORTEX)[brain]
    median = float(np.median(values[brain])) if brain.any() else 0.0
    fluid = brain & (values < _FLUID * median)
    codes[fluid & (prior[VENTRICLE - 1] > _PRIOR_REACH)] = VENTRICLE
    return codes


def assign_regions(
    labels: np.ndarray, region_codes: np.ndarray, zooms: Sequence[float]
) -> dict[int, str]:
    """Assign each lesion to one region.

    A lesion is periventricular when it touches a lateral or the third ventricle after dilation
    by one voxel; else infratentorial when most of it is; else juxtacortical (or cortical) when a
    fifth of it and its neighbourhood is cortex; else deep.

    Parameters
    ----------
    labels : ndarray, (X, Y, Z)
        1 to n.
    region_codes : ndarray, (X, Y, Z)
        From `region_map`.
    zooms : sequence of float, (3,)
        Voxel size (mm); axes with thick slices are not dilated across.

    Returns
    -------
    dict
        Region of each label.
    """
    reach = [int(z <= _THICK) for z in zooms]
    if not any(reach):
        reach = [1, 1, 1]
    structure = np.ones([2 * r + 1 for r in reach], dtype=bool)
    assigned: dict[int, str] = {}
    for number, found in enumerate(ndimage.find_objects(labels), start=1):
        if found is None:
            continue
        box = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in found)
        lesion = labels[box] == number
        codes = region_codes[box]
        around = codes[ndimage.binary_dilation(lesion, structure)]
        if (around == VENTRICLE).any():
            region = "periventricular"
        elif (codes[lesion] == INFRATENTORIAL).mean() > 0.5:
            region = "infratentorial"
        elif (around == CORTEX).mean() >= _CORTEX_SHARE:
            region = "juxtacortical"
        else:
            region = "deep"
        assigned[number] = region
    return assigned
