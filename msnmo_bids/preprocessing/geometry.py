"""Check a raw FLAIR, bring it to RAS axis order, and bring results back to its own grid.

Affines map voxel indices to RAS millimetres and multiply column vectors. The *native grid* is the
shape and the affine of the raw FLAIR (`nifti_file` says which of its forms). RAS order and native
order differ by a permutation and flips of axes, so no value is ever interpolated here.

A qform holds no shears. Where the raw affine has some, the sform of every image written here
equals it, the qform is the nearest one without shears, and the scan gets the flag
``sheared_affine``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import orientations
from nibabel.arrayproxy import ArrayProxy
from scipy import ndimage

from msnmo_bids.errors import BadInputError
from msnmo_bids.preprocessing.intensities import background_to_zero, fault_of_values
from msnmo_bids.preprocessing.nifti_file import has_form, open_nifti, read_nifti

MIN_SLICES = 8
MIN_FIELD_OF_VIEW_MM = 80.0
MAX_FIELD_OF_VIEW_MM = 600.0
COMPLETE_FIELD_OF_VIEW_MM = 110.0  # below it, part of an adult brain is missing
THICK_SLICE_MM = 3.05  # consensus protocols for MS ask for 2D slices of at most 3 mm
SHEAR_TOLERANCE = 1e-3  # cosine between two voxel axes
SIZE_TOLERANCE = 0.02  # largest share by which the header's two voxel sizes differ
FORM_TOLERANCE_MM = 0.1  # largest difference of corner positions between qform and sform
ORIENTATION_OPTION = "--assume-orientation"

_AXIS_NAMES = ("left to right", "posterior to anterior", "inferior to superior")
_RAS = np.array([[0, 1], [1, 1], [2, 1]])


def check_flair(path: Path, orientation: str | None = None) -> nib.Nifti1Image:
    """Read a raw FLAIR, bring its background to 0, and refuse what cannot be processed.

    `orientation` are axis codes (such as ``"LAS"``) to assume where the header has no valid form.

    Returns
    -------
    nib.Nifti1Image
        The 3D image, float32 (scale factors applied), native grid. A fourth axis of length 1 is
        dropped. ``extra["flags"]`` names what was found and mended, ``extra["intensities"]`` has
        its figures.

    Raises
    ------
    BadInputError
        What `read_nifti` refuses, and: complex or colour values, not one 3D volume, no valid
        orientation, a field of view that cannot hold a brain, NaN or infinite values or empty
        slices within the head, one value or few values everywhere, values that ran over.
    """
    path = Path(path)
    image = read_nifti(path)
    _check_values_are_real(path, image)
    shape = _shape_3d(path, image.shape)
    affine = _checked_affine(path, image, orientation)
    _check_field_of_view(path, shape, affine)
    with np.errstate(over="ignore", invalid="ignore"):
        data = image.get_fdata(dtype=np.float32, caching="unchanged").reshape(shape, order="F")
    _check_values(path, image, data)
    try:
        data, found = background_to_zero(data, float(abs(np.linalg.det(affine[:3, :3]))) / 1000)
    except ValueError as error:
        raise BadInputError(
            str(error),
            file=path,
            remedy="Export the image again, or replace them (by the background's value outside of "
            "the brain)",
        ) from error
    header = image.header.copy()
    header.set_data_dtype(np.float32)
    header.set_slope_inter(1, 0)
    mended = nib.Nifti1Image(data, affine, nib.Nifti1Header.from_header(header))
    assumed = [] if has_form(image) else ["orientation_assumed"]
    mended.extra["flags"] = [*image.extra["flags"], *assumed, *found.flags]
    mended.extra["intensities"] = {
        "Zero": found.zero,
        "NotFiniteVoxels": found.n_not_finite,
        "HotVoxels": found.n_hot,
    }
    return mended


def conform(path: Path, out: Path, orientation: str | None = None) -> dict[str, Any]:
    """Write a raw FLAIR in RAS axis order (float32), its background 0, with equal qform and sform.

    `orientation` are axis codes to assume where the header has no valid form.

    Returns
    -------
    dict
        ``axcodes`` (such as ``"LPS"``), ``zooms`` (mm) and ``shape`` of the raw scan, in its own
        axis order; ``intensities`` that were mended; ``flags``; ``voxels``, the SHA-256 of all
        values in RAS order: the same for a copy with another header or compression.

    Raises
    ------
    BadInputError
        See `check_flair`.
    """
    native = check_flair(path, orientation)
    to_ras = orientations.io_orientation(native.affine)
    data = orientations.apply_orientation(np.asanyarray(native.dataobj), to_ras)
    affine = native.affine @ orientations.inv_ornt_aff(to_ras, native.shape)
    image = with_equal_forms(np.ascontiguousarray(data), affine, _form_code(native.header))
    nib.save(image, out)
    return {
        "axcodes": "".join(nib.aff2axcodes(native.affine)),
        "zooms": [round(float(size), 6) for size in nib.affines.voxel_sizes(native.affine)],
        "shape": [int(size) for size in native.shape],
        "intensities": native.extra["intensities"],
        "voxels": hashlib.sha256(np.ascontiguousarray(data).data).hexdigest(),
        "flags": [*_flags(native), *native.extra["flags"]],
    }


def to_native(
    array_ras: np.ndarray, native_path: Path, orientation: str | None = None
) -> nib.Nifti1Image:
    """Put an array, (X, Y, Z), on the grid that `conform` wrote onto the native grid, by voxel.

    The dtype is kept (bool becomes uint8). Of the raw FLAIR only the header is read; `orientation`
    are the axis codes that `conform` assumed.

    Raises
    ------
    ValueError
        The array does not fit the raw scan.
    """
    native = open_nifti(native_path)
    shape = native.shape[:3]
    affine = _checked_affine(native_path, native, orientation)
    to_ras = orientations.io_orientation(affine)
    from_ras = orientations.ornt_transform(_RAS, to_ras)
    data = orientations.apply_orientation(np.asarray(array_ras), from_ras)
    if data.shape != shape:
        raise ValueError(f"array of shape {data.shape} (native order) for a scan of shape {shape}")
    data = data.astype(np.uint8) if data.dtype == bool else data
    return with_equal_forms(np.ascontiguousarray(data), affine, _form_code(native.header))


def with_equal_forms(data: np.ndarray, affine: np.ndarray, code: int = 1) -> nib.Nifti1Image:
    """Make an image, (X, Y, Z) of the data's dtype, whose qform and sform both say ``affine``.

    `code` is the NIfTI code of both forms (1 = scanner). With shears in the affine, the qform is
    the nearest one that has none.
    """
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, code=code)
    image.set_qform(affine, code=code, strip_shears=True)
    image.header.set_xyzt_units("mm", "sec")
    return image


def box_around(mask: np.ndarray, margin: int | Sequence[int]) -> tuple[slice, ...]:
    """Return the box of a mask (bool) with a margin, as `enlarged`; of an empty mask, all of it."""
    whole = tuple(slice(0, size) for size in mask.shape)
    found = ndimage.find_objects(mask.astype(np.uint8))
    return enlarged(found[0] if found else whole, margin, mask.shape)


def enlarged(
    box: Sequence[slice], margin: int | Sequence[int], shape: Sequence[int]
) -> tuple[slice, ...]:
    """Return a box with a margin (voxels, or those of each axis), as far as the grid goes."""
    margins = np.broadcast_to(margin, len(shape)).tolist()
    return tuple(
        slice(max(0, part.start - more), min(size, part.stop + more))
        for part, more, size in zip(box, margins, shape, strict=True)
    )


def shear(affine: np.ndarray) -> float:
    """Return the largest cosine between two voxel axes of an affine (4, 4); 0 without shears."""
    axes = affine[:3, :3] / nib.affines.voxel_sizes(affine)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())


def _check_values_are_real(path: Path, image: nib.Nifti1Image) -> None:
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        what = "complex" if dtype.kind == "c" else "colour (RGB)"
        raise BadInputError(
            f"{what} voxel values", file=path, remedy="Provide the magnitude image as one number"
        )


def _shape_3d(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) < 3 or min(shape) < 1:
        text = " x ".join(str(size) for size in shape)
        raise BadInputError(
            f"image of {text} voxels, not a 3D volume",
            file=path,
            remedy="Provide the whole volume in one file",
        )
    n_volumes = int(np.prod(shape[3:]))
    if n_volumes > 1:
        raise BadInputError(
            f"{len(shape)}D image of {n_volumes} volumes; a FLAIR is one 3D volume",
            file=path,
            remedy="Keep the volume that is the FLAIR, or exclude the file",
        )
    return shape[:3]


def _checked_affine(path: Path, image: nib.Nifti1Image, orientation: str | None) -> np.ndarray:
    """Return the image's affine, or the one that the voxel sizes and axis codes make."""
    if has_form(image):
        return image.affine
    if orientation is None:
        raise BadInputError(
            "no valid orientation in the header (neither qform nor sform): left and right cannot "
            "be told apart",
            file=path,
            remedy="Convert the image from DICOM again, repair its header, or go on with the voxel "
            f"sizes alone ({ORIENTATION_OPTION}, such as LAS: axes towards left, anterior, "
            "superior)",
        )
    sizes = np.asarray(image.header.get_zooms()[:3], dtype=float)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for index, (axis, sign) in enumerate(orientations.axcodes2ornt(orientation)):
        affine[int(axis), index] = sign * sizes[index]
    affine[:3, 3] = -affine[:3, :3] @ (np.array(image.shape[:3]) - 1) / 2
    return affine


def _check_field_of_view(path: Path, shape: tuple[int, ...], affine: np.ndarray) -> None:
    sizes = nib.affines.voxel_sizes(affine)
    ras_axis = orientations.io_orientation(affine)[:, 0].astype(int)
    for n_slices, size, axis in zip(shape, sizes, ras_axis, strict=True):
        extent = n_slices * size
        what = f"{n_slices} slices of {size:.3g} mm from {_AXIS_NAMES[axis]}"
        if extent > MAX_FIELD_OF_VIEW_MM:
            raise BadInputError(
                f"implausible field of view: {what}",
                file=path,
                remedy="Check the voxel size in the header (it must be in millimetres)",
            )
        if n_slices < MIN_SLICES or extent < MIN_FIELD_OF_VIEW_MM:
            raise BadInputError(
                f"only {what} ({extent:.0f} mm): the scan does not cover the brain",
                file=path,
                remedy="Exclude the file, or provide a scan of the whole brain",
            )


def _check_values(path: Path, image: nib.Nifti1Image, data: np.ndarray) -> None:
    """Refuse values that no step can mend: as 32-bit numbers, (X, Y, Z), and as they are stored."""
    remedy = "Export the image again, or exclude it"
    lowest, highest = float(np.fmin.reduce(data, axis=None)), float(np.fmax.reduce(data, axis=None))
    if lowest == highest:
        what = "0" if lowest == 0 else f"the same value ({lowest:g})"
        raise BadInputError(f"every voxel is {what}", file=path, remedy=remedy)
    assert isinstance(image.dataobj, ArrayProxy)  # of `read_nifti`
    stored = np.asanyarray(image.dataobj.get_unscaled()).reshape(data.shape, order="F")
    if np.isinf(data).any() and not np.isinf(stored).any():
        problem = "intensities beyond 3e38 (the scale factor in the header?)"
        raise BadInputError(problem, file=path, remedy="Scale the image to smaller numbers")
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
    if fault := fault_of_values(stored, scaled=scaled):
        raise BadInputError(fault, file=path, remedy=remedy)


def _flags(native: nib.Nifti1Image) -> list[str]:
    sizes = nib.affines.voxel_sizes(native.affine)
    header = native.header
    forms_differ = (
        int(header["qform_code"]) > 0
        and int(header["sform_code"]) > 0
        and corner_distance(header.get_qform(), native.affine, native.shape) > FORM_TOLERANCE_MM
    )
    stated = np.array(header.get_zooms()[:3], dtype=float)
    found = {
        "thick_slices": sizes.max() > THICK_SLICE_MM,
        "partial_coverage": np.min(sizes * native.shape) < COMPLETE_FIELD_OF_VIEW_MM,
        "sheared_affine": shear(native.affine) > SHEAR_TOLERANCE,
        "qform_differs_from_sform": forms_differ,
        "voxel_sizes_contradict": not np.allclose(stated, sizes, rtol=SIZE_TOLERANCE),
    }
    return [flag for flag, is_set in found.items() if is_set]


def corner_distance(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return how far apart (mm) two affines, (4, 4) from index to RAS mm, put an image's corners.

    It is the largest distance of a corner's two positions; `shape`, (3,), is the image's.
    """
    corners = np.stack(np.meshgrid(*[(0, size - 1) for size in shape], indexing="ij"), axis=-1)
    difference = nib.affines.apply_affine(one, corners) - nib.affines.apply_affine(other, corners)
    return float(np.linalg.norm(difference, axis=-1).max())


def _form_code(header: nib.Nifti1Header) -> int:
    """NIfTI code of the form that gives the affine."""
    return int(header["sform_code"]) or int(header["qform_code"]) or 1
