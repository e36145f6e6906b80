"""Bias field correction where ANTs' programs are not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from msnmo_bids.interfaces.base import StepInterface


class _N4AntsPyXInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="FLAIR (RAS)")
    mask_file = File(exists=True, mandatory=True, desc="brain mask")
    shrink_factor = traits.Range(1, 16, 4, usedefault=True, desc="subsampling, voxels")
    n_iterations = traits.List(
        traits.Int, [50, 50, 50, 50], usedefault=True, desc="most iterations a level"
    )
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="threads")


class _N4AntsPyXOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="bias-corrected FLAIR")
    tool = traits.Dict(desc="{Tool, Version, Settings}")


class N4AntsPyX(StepInterface):
    """N4 bias field correction by the Python package antspyx."""

    input_spec = _N4AntsPyXInputSpec
    output_spec = _N4AntsPyXOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        from msnmo_bids.preprocessing.bias import n4_antspyx

        out_file = folder / "flair_n4.nii"
        tool = n4_antspyx(
            Path(self.inputs.in_file),
            Path(self.inputs.mask_file),
            out_file,
            shrink_factor=self.inputs.shrink_factor,
            n_iterations=tuple(self.inputs.n_iterations),
            n_threads=self.inputs.num_threads,
        )
        return {"out_file": str(out_file), "tool": dict(tool)}
