"""Brain masks: from a stripped image, checked, and applied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from msnmo_bids.interfaces.base import StepInterface
from msnmo_bids.interfaces.deepbet import MaskOutputSpec


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
        from msnmo_bids.preprocessing.skullstrip import check_mask

        image, mask = Path(self.inputs.in_file), folder / "brain_mask.nii"
        inside = load_array(Path(self.inputs.mask_file)) > 0
        write_like(inside.astype("uint8"), image, mask)
        flags = check_mask(mask, image)["Flags"]
        return {"mask_file": str(mask), "tool": self.inputs.tool, "flags": flags}


class _ApplyMaskInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="bias-corrected FLAIR (RAS)")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the same grid")


class _ApplyMaskOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="FLAIR, 0 outside of the brain")


class ApplyMask(StepInterface):
    """Set everything outside of the brain to zero."""

    input_spec = _ApplyMaskInputSpec
    output_spec = _ApplyMaskOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        from msnmo_bids.preprocessing.bias import masked

        out_file = folder / "flair_preproc.nii"
        masked(Path(self.inputs.in_file), Path(self.inputs.mask_file), out_file)
        return {"out_file": str(out_file)}
