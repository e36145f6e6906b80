"""Skull stripping where FSL is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from msnmo_bids.interfaces.base import StepInterface


class _DeepBETInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="FLAIR (RAS)")
    stripped = traits.Bool(False, usedefault=True, desc="the image came without its skull")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="threads")


class MaskOutputSpec(TraitedSpec):
    """A brain mask and the record of the tool that made it."""

    mask_file = File(exists=True, desc="brain mask (uint8)")
    tool = traits.Dict(desc="{Tool, Version, Settings}")


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
