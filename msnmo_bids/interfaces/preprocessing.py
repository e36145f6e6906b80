"""Nodes from the raw FLAIR to the network's input: orientation, brain mask, bias field, cube."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

from msnmo_bids.interfaces.base import BrainInputSpec, StepInterface, load_array, write_like
from msnmo_bids.preprocessing.bias import apply_field, n4_antspyx, shrink
from msnmo_bids.preprocessing.cube import to_cube
from msnmo_bids.preprocessing.geometry import conform
from msnmo_bids.preprocessing.skullstrip import (
    STRIPPED_BEFORE,
    check_mask,
    deepbet_mask,
    foreground_mask,
    looks_stripped,
)


class _ConformInputSpec(BaseInterfaceInputSpec):
    # A plain string: a broken link must reach the check, which says what to do about it.
    in_file = traits.Str(mandatory=True, desc="raw FLAIR")
    orientation = traits.Either(None, traits.Str, desc="axis codes to assume without valid form")
    look_for_skull = traits.Bool(
        False, usedefault=True, desc="whether the image itself says if it was stripped before"
    )


class _ConformOutputSpec(TraitedSpec):
    out_file = File(desc="FLAIR in RAS order, float32, qform equal to sform")
    stripped = traits.Bool(desc="the image came without its skull")
    info = traits.Dict(desc="axis codes, voxel size, shape and flags of the raw image")


class Conform(StepInterface):
    """Check a raw FLAIR and write it in RAS order.

    Raises
    ------
    BadInputError
        If the file cannot be processed (see ``preprocessing.geometry.check_flair``).
    """

    input_spec = _ConformInputSpec
    output_spec = _ConformOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        given, out_file = self.inputs, folder / "flair_ras.nii"
        info = conform(Path(given.in_file), out_file, given.orientation)
        stripped = given.look_for_skull and looks_stripped(out_file)
        if stripped:
            info["flags"].append(STRIPPED_BEFORE)
        return {"out_file": str(out_file), "stripped": stripped, "info": info}


class _MaskOutputSpec(TraitedSpec):
    mask_file = File(exists=True, desc="brain mask (uint8)")
    tool = traits.Dict(desc="{Tool, Version, Settings}")


class _DeepBETInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="FLAIR (RAS)")
    stripped = traits.Bool(False, usedefault=True, desc="the image came without its skull")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="threads")


class DeepBET(StepInterface):
    """Brain mask by deepbet's convolutional network; of a stripped image, what is there."""

    library = "torch"
    input_spec = _DeepBETInputSpec
    output_spec = _MaskOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        image, mask = Path(self.inputs.in_file), folder / "brain_mask.nii"
        if self.inputs.stripped:
            tool = foreground_mask(image, mask)
        else:
            tool = deepbet_mask(image, mask, n_threads=self.inputs.num_threads)
        return {"mask_file": str(mask), "tool": dict(tool)}


class _ForegroundInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="skull-stripped FLAIR (RAS)")


class Foreground(StepInterface):
    """Brain mask of an image that came without a skull: what is not background."""

    input_spec = _ForegroundInputSpec
    output_spec = _MaskOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        mask = folder / "brain_mask.nii"
        tool = foreground_mask(Path(self.inputs.in_file), mask)
        return {"mask_file": str(mask), "tool": dict(tool)}


class _BrainMaskInputSpec(BrainInputSpec):
    tool = traits.Dict(mandatory=True, desc="{Tool, Version, Settings} of that tool")
    stripped = traits.Bool(
        False, usedefault=True, desc="the image came without its skull: no tool's mask counts"
    )


class _BrainMaskOutputSpec(_MaskOutputSpec):
    flags = traits.List(traits.Str, desc="what is odd about the mask, but not wrong")


class BrainMask(StepInterface):
    """Check a tool's brain mask and write it on the image's own grid.

    Raises
    ------
    BadInputError
        If the mask holds no plausible brain.
    """

    input_spec = _BrainMaskInputSpec
    output_spec = _BrainMaskOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        image, mask = Path(self.inputs.in_file), folder / "brain_mask.nii"
        tool = self.inputs.tool
        if self.inputs.stripped:
            tool = dict(foreground_mask(image, mask))
        else:
            inside = load_array(Path(self.inputs.mask_file)) > 0
            write_like(inside.astype("uint8"), image, mask)
        flags = check_mask(mask, image)["Flags"]
        return {"mask_file": str(mask), "tool": tool, "flags": flags}


class _ShrinkInputSpec(BrainInputSpec):
    grid_mm = traits.Range(1.0, 32.0, mandatory=True, desc="voxel side of the coarse grid, mm")


class _ShrinkOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="FLAIR on the coarse grid")
    mask_file = File(exists=True, desc="voxels to fit on that grid")


class Shrink(StepInterface):
    """Image and brain mask on the coarse grid that N4 sees."""

    input_spec = _ShrinkInputSpec
    output_spec = _ShrinkOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        given, out, mask = self.inputs, folder / "flair_coarse.nii", folder / "mask_coarse.nii"
        shrink(Path(given.in_file), Path(given.mask_file), out, mask, grid_mm=float(given.grid_mm))
        return {"out_file": str(out), "mask_file": str(mask)}


class _N4AntsPyXInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="FLAIR on a coarse grid")
    mask_file = File(exists=True, mandatory=True, desc="voxels to fit")
    n_iterations = traits.List(
        traits.Int, [50, 50, 50, 50], usedefault=True, desc="most iterations a level"
    )


class _N4AntsPyXOutputSpec(TraitedSpec):
    bias_image = File(exists=True, desc="bias field on the coarse grid, a factor")


class N4AntsPyX(StepInterface):
    """Bias field by the N4 of the Python package antspyx."""

    input_spec = _N4AntsPyXInputSpec
    output_spec = _N4AntsPyXOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        field = folder / "bias_field.nii"
        n4_antspyx(
            Path(self.inputs.in_file),
            Path(self.inputs.mask_file),
            field,
            n_iterations=tuple(self.inputs.n_iterations),
        )
        return {"bias_image": str(field)}


class _ApplyMaskInputSpec(BrainInputSpec):
    field_file = File(exists=True, desc="bias field to divide by, on any grid; none if not given")


class _ApplyMaskOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="FLAIR, 0 outside of the brain")


class ApplyMask(StepInterface):
    """Divide by the bias field, if there is one; set everything outside of the brain to zero."""

    input_spec = _ApplyMaskInputSpec
    output_spec = _ApplyMaskOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        given, out_file = self.inputs, folder / "flair_preproc.nii"
        field = Path(given.field_file) if isdefined(given.field_file) else None
        apply_field(Path(given.in_file), Path(given.mask_file), field, out_file)
        return {"out_file": str(out_file)}


class _ToCubeInputSpec(BrainInputSpec):
    shape = traits.List(traits.Int, mandatory=True, minlen=3, maxlen=3, desc="voxels per side")


class _ToCubeOutputSpec(TraitedSpec):
    cube_file = File(exists=True, desc="network input, float32 (D, H, W), .npy")
    transform_file = File(exists=True, desc="the box of the image that the cube shows, JSON")


class ToCube(StepInterface):
    """Crop to the brain, resize and z-score."""

    input_spec = _ToCubeInputSpec
    output_spec = _ToCubeOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        cube, transform = to_cube(
            Path(self.inputs.in_file), Path(self.inputs.mask_file), shape=tuple(self.inputs.shape)
        )
        cube_file, transform_file = folder / "cube.npy", folder / "cube.json"
        np.save(cube_file, cube, allow_pickle=False)
        transform_file.write_text(transform.to_json(), encoding="utf-8")
        return {"cube_file": str(cube_file), "transform_file": str(transform_file)}
