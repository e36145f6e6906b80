"""Brain masks: made by deepbet or of a stripped image, checked, and applied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, isdefined, traits

from msnmo_bids.interfaces.base import StepInterface


class MaskOutputSpec(TraitedSpec):
    """A brain mask and the record of the tool that made it."""

    mask_file = File(exists=True, desc="brain mask (uint8)")
    tool = traits.Dict(desc="{Tool, Version, Settings}")


class _DeepBETInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="FLAIR (RAS)")
    stripped = traits.Bool(False, usedefault=True, desc="the image came without its skull")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="threads")


class DeepBET(StepInterface):
    """Brain mask by deepbet's convolutional network; of a stripped image, what is there."""

    input_spec = _DeepBETInputSpec
    output_spec = MaskOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        from msnmo_bids.preprocessing.skullstrip import deepbet_mask, foreground_mask

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
    output_spec = MaskOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        from msnmo_bids.preprocessing.skullstrip import foreground_mask

        mask = folder / "brain_mask.nii"
        tool = foreground_mask(Path(self.inputs.in_file), mask)
        return {"mask_file": str(mask), "tool": dict(tool)}


class _BrainMaskInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="FLAIR (RAS)")
    mask_file = File(exists=True, mandatory=True, desc="brain mask of any tool")
    tool = traits.Dict(mandatory=True, desc="{Tool, Version, Settings} of that tool")
    stripped = traits.Bool(
        False, usedefault=True, desc="the image came without its skull: no tool's mask counts"
    )


class _BrainMaskOutputSpec(MaskOutputSpec):
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
        from msnmo_bids.interfaces.images import load_array, write_like
        from msnmo_bids.preprocessing.skullstrip import check_mask, foreground_mask

        image, mask = Path(self.inputs.in_file), folder / "brain_mask.nii"
        tool = self.inputs.tool
        if self.inputs.stripped:
            tool = dict(foreground_mask(image, mask))
        else:
            inside = load_array(Path(self.inputs.mask_file)) > 0
            write_like(inside.astype("uint8"), image, mask)
        flags = check_mask(mask, image)["Flags"]
        return {"mask_file": str(mask), "tool": tool, "flags": flags}


class _ApplyMaskInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="FLAIR (RAS)")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the same grid")
    field_file = File(exists=True, desc="bias field to divide by, on any grid; none if not given")


class _ApplyMaskOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="FLAIR, 0 outside of the brain")


class ApplyMask(StepInterface):
    """Divide by the bias field, if there is one; set everything outside of the brain to zero."""

    input_spec = _ApplyMaskInputSpec
    output_spec = _ApplyMaskOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        from msnmo_bids.preprocessing.bias import apply_field

        given, out_file = self.inputs, folder / "flair_preproc.nii"
        field = Path(given.field_file) if isdefined(given.field_file) else None
        apply_field(Path(given.in_file), Path(given.mask_file), field, out_file)
        return {"out_file": str(out_file)}
