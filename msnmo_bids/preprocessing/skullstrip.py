"""Brain masks on the conformed RAS grid: deepbet, or the foreground of stripped input.

FSL's BET, where it is installed, runs as Nipype's own node and not here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from msnmo_bids.errors import BadInputError
from msnmo_bids.preprocessing.geometry import with_equal_forms
from msnmo_bids.preprocessing.intensities import commonest_at_border

if TYPE_CHECKING:
    from deepbet import BrainExtraction

logger = logging.getLogger(__name__)

#: Tool of a brain mask that is all of an image without a skull.
FOREGROUND_TOOL = "msnmo foreground"
#: Flag of a scan of which only the image itself says that it has no skull.
STRIPPED_BEFORE = "skull_stripped_before"

PLAUSIBLE_BRAIN_ML = (600.0, 2400.0)
TOLERANCE = 1.5  # factor beyond the plausible range from which stripping has failed
DEEPBET_THRESHOLD = 0.5
CUT_AREA_CM2 = 25.0  # of brain in an outermost slice; the medulla in the lowest one has 5 to 10
_TRY_ANOTHER = "Try another --skull-strip, or exclude the scan"

_LOOK_MM = 3.0  # grid on which a skull is looked for
_NOTHING = 0.01  # of the image's 99th percentile
_EMPTY = 0.995  # least share of exact zeros around the head; real stripped images: above 0.9998
_SCALP_MM, _DEEP_MM = 6.0, 18.0  # skull and fluid lie between, under the scalp
_RING_MM = 3.0
_AS_BRIGHT = 0.8  # of the depth; real stripped images: above 0.95, heads with a skull: below 0.75


#: ``Tool``, ``Version`` and ``Settings``, as the sidecars of the derivatives carry them.
ToolRecord = dict[str, Any]


def deepbet_mask(
    image: Path, mask: Path, *, n_threads: int = 1, precision: str = "fp32"
) -> ToolRecord:
    """Write a brain mask (uint8) by deepbet's networks (Fisch et al. 2023, arXiv:2308.07003).

    The image is in RAS order with its skull, of any voxel size: deepbet resizes the brain's box
    itself. `precision` is "fp32" or "bf16", which a processor may not be able to compute with.

    Raises
    ------
    BadInputError
        deepbet finds no brain.
    """
    from importlib.metadata import version

    import torch

    flair = nib.Nifti1Image.from_filename(image)
    data = flair.get_fdata(dtype=np.float32)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with _torch_threads(n_threads), autocast:
        network = _deepbet()
        try:
            probability = network.run_model(np.ascontiguousarray(data))
            brain = network.postprocess(probability > DEEPBET_THRESHOLD)
        except (AssertionError, ValueError) as error:
            raise BadInputError(
                "deepbet finds no brain", file=image, remedy=_TRY_ANOTHER
            ) from error
    _save_mask(np.asarray(brain) > 0, flair, mask)
    return {
        "Tool": "deepbet",
        "Version": version("deepbet"),
        "Settings": {"threshold": DEEPBET_THRESHOLD, "n_dilate": 0, "precision": precision},
    }


def foreground_mask(image: Path, mask: Path) -> ToolRecord:
    """Write the brain mask (uint8) of a skull-stripped RAS image: what differs from its background.

    The background is the most frequent value of the image's six outer faces. The largest
    26-connected component is kept and its holes are filled.

    Raises
    ------
    BadInputError
        Nothing differs from the background.
    """
    from msnmo_bids.version import get_version

    flair = nib.Nifti1Image.from_filename(image)
    data = flair.get_fdata(dtype=np.float32)
    background, _ = commonest_at_border(data)
    brain = largest_component(data != background)
    if not brain.any():
        raise BadInputError("image has no foreground", file=image, remedy=_TRY_ANOTHER)
    _save_mask(ndimage.binary_fill_holes(brain), flair, mask)
    return {
        "Tool": FOREGROUND_TOOL,
        "Version": get_version(),
        "Settings": {"background": background, "connectivity": 26},
    }


def looks_stripped(image: Path) -> bool:
    """Say whether an image came without its skull: an emptied background around a brain.

    What differs from the background has a brain's volume, all around is exactly 0, and from its
    rim inwards it soon is as bright as in its depth. Under a scalp lies the skull, which is dark,
    whatever was done to the air or to the face.

    `image` is in RAS order, its background 0 (:mod:`msnmo_bids.preprocessing.intensities`).
    """
    flair = nib.Nifti1Image.from_filename(image)
    zooms = nib.affines.voxel_sizes(flair.affine)
    steps = [max(1, round(_LOOK_MM / float(size))) for size in zooms]
    some = np.asarray(flair.dataobj[tuple(slice(step // 2, None, step) for step in steps)])
    zooms = zooms * steps
    inside = _foreground_of_planes(some)
    around = ~ndimage.binary_dilation(inside)
    volume_ml = float(np.count_nonzero(inside) * np.prod(zooms) / 1000)
    lowest, highest = PLAUSIBLE_BRAIN_ML
    is_brain = lowest / TOLERANCE <= volume_ml <= highest
    n_empty, n_around = np.count_nonzero(some[around] == 0), np.count_nonzero(around)
    if not is_brain or not n_around or n_empty < _EMPTY * n_around:
        return False
    depth = _depth_in_planes(inside, zooms)
    deep = depth > _DEEP_MM
    if not deep.any():
        return False
    least = _AS_BRIGHT * float(np.median(some[deep]))
    starts = np.arange(_SCALP_MM, _DEEP_MM - _RING_MM, _RING_MM)
    rings = [some[(depth > start) & (depth <= start + _RING_MM)] for start in starts]
    return all(float(np.median(ring)) >= least for ring in rings if ring.size)


def check_mask(mask: Path, image: Path) -> list[str]:
    """Judge a brain mask of an image by its volume and by where it ends; return flags.

    That is ``implausible_brain_volume`` and ``partial_coverage`` (the brain is cut at the border).

    Raises
    ------
    BadInputError
        The volume is far from a brain's, or the shapes differ.
    """
    brain_image = nib.Nifti1Image.from_filename(mask)
    shape = nib.Nifti1Image.from_filename(image).shape
    if brain_image.shape != shape:
        raise BadInputError(
            f"brain mask of shape {brain_image.shape} for an image of shape {shape}", file=image
        )
    brain = np.asanyarray(brain_image.dataobj) > 0
    zooms = nib.affines.voxel_sizes(brain_image.affine)
    volume_ml = float(np.count_nonzero(brain) * np.prod(zooms) / 1000)
    lowest, highest = PLAUSIBLE_BRAIN_ML
    if volume_ml < lowest / TOLERANCE:
        raise BadInputError(
            f"brain mask of {volume_ml:.0f} ml: skull stripping failed",
            file=image,
            remedy=_TRY_ANOTHER,
        )
    if volume_ml > highest * TOLERANCE:
        raise BadInputError(
            f"brain mask of {volume_ml:.0f} ml: the skull was not removed",
            file=image,
            remedy="Use --skull-strip deepbet (or bet), and check SkullStripped in the sidecar",
        )
    found = {
        "implausible_brain_volume": not lowest <= volume_ml <= highest,
        "partial_coverage": largest_cut_cm2(brain, zooms) > CUT_AREA_CM2,
    }
    return [flag for flag, is_set in found.items() if is_set]


def bet_version() -> str:
    """Return the version of the FSL installation at ``$FSLDIR``, or ``"unknown"``."""
    file = Path(os.environ.get("FSLDIR", "")) / "etc" / "fslversion"
    try:
        return file.read_text(encoding="utf-8").split(":")[0].strip() or "unknown"
    except (OSError, UnicodeDecodeError):
        return "unknown"


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Return the largest 26-connected component of a mask (bool, same shape)."""
    labels, n_components = ndimage.label(mask, structure=np.ones((3, 3, 3), dtype=bool))
    if n_components < 2:
        return np.asarray(mask, dtype=bool)
    return labels == np.bincount(labels.ravel())[1:].argmax() + 1


def largest_cut_cm2(brain: np.ndarray, zooms: Sequence[float]) -> float:
    """Return the largest area (cm²) of a brain mask, (X, Y, Z), in an outermost plane.

    `zooms` are the voxel's sides (mm).
    """
    areas = []
    for axis in range(3):
        pixel_cm2 = float(np.prod(np.delete(np.asarray(zooms, dtype=float), axis))) / 100
        areas += [np.count_nonzero(np.take(brain, face, axis=axis)) * pixel_cm2 for face in (0, -1)]
    return float(max(areas))


def _save_mask(brain: np.ndarray, image: nib.Nifti1Image, path: Path) -> None:
    code = int(image.header["sform_code"])
    nib.save(with_equal_forms(brain.astype(np.uint8), image.affine, code), path)


def _foreground_of_planes(data: np.ndarray) -> np.ndarray:
    """Return the largest piece of what is not background, its holes filled plane by plane."""
    magnitude = np.abs(data)
    there = magnitude > 0
    if not there.any():
        return there
    there = magnitude > _NOTHING * np.percentile(magnitude[there], 99)
    piece = largest_component(ndimage.binary_opening(there))
    return np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(piece, 2, 0)], 2)


def _depth_in_planes(mask: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """Return the distance (mm) to the rim of a mask within axial planes; 0 outside."""
    planes = np.pad(np.moveaxis(mask, 2, 0), ((0, 0), (1, 1), (1, 1)))
    depths = [ndimage.distance_transform_edt(plane, sampling=zooms[:2]) for plane in planes]
    return np.stack(depths, 2)[1:-1, 1:-1]


@lru_cache(maxsize=1)
def _deepbet() -> BrainExtraction:
    """Load deepbet's two networks, once a process; they stay on the CPU."""
    from deepbet import BrainExtraction

    logger.debug("loading deepbet's networks")
    return BrainExtraction(no_gpu=True)


@contextmanager
def _torch_threads(n_threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, n_threads))
    try:
        yield
    finally:
        torch.set_num_threads(before)
