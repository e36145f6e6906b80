"""The coarse grid of the bias field, and N4 where ANTs' programs are not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from msnmo_bids.interfaces.base import StepInterface


class _ShrinkInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="FLAIR (RAS)")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the same grid")
    grid_mm = traits.Range(1.0, 32.0, mandatory=True, desc="voxel side of the coarse grid, mm")


class _ShrinkOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="FLAIR on the coarse grid")
    mask_file = File(exists=True, desc="voxels to fit on that grid")


class Shrink(StepInterface):
    """Image and brain mask on the coarse grid that N4 sees."""

    input_spec = _ShrinkInputSpec
    output_spec = _ShrinkOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        from msnmo_bids.preprocessing.bias import shrink

        given, out, mask = self.inputs, folder / "flair_coarse.nii", folder / "mask_coarse.nii"
        shrink(Path(given.in_file), Path(given.mask_file), out, mask, grid_mm=float(given.grid_mm))
        return {"out_file": str(out), "mask_file": str(mask)}


class _N4AntsPyXInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="FLAIR on a coarse grid")
    mask_file = File(exists=True, mandatory=True, desc="voxels to fit")
    n_iterations = traits.List(
        traits.Int, [50, 50, 50, 50], usedefault=True, desc="most iterations a level"
    )
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="threads")


class _N4AntsPyXOutputSpec(TraitedSpec):
    bias_image = File(exists=True, desc="bias field on the coarse grid, a factor")


class N4AntsPyX(StepInterface):
    """Bias field by the N4 of the Python package antspyx."""

    input_spec = _N4AntsPyXInputSpec
    output_spec = _N4AntsPyXOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        from msnmo_bids.preprocessing.bias import n4_antspyx

        field = folder / "bias_field.nii"
        n4_antspyx(
            Path(self.inputs.in_file),
            Path(self.inputs.mask_file),
            field,
            n_iterations=tuple(self.inputs.n_iterations),
            n_threads=self.inputs.num_threads,
        )
        return {"bias_image": str(field)}
