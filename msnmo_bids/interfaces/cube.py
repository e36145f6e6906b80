"""From the preprocessed FLAIR to the network's input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from msnmo_bids.interfaces.base import StepInterface


class _ToCubeInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="preprocessed FLAIR (RAS)")
    mask_file = File(exists=True, mandatory=True, desc="brain mask")
    shape = traits.List(traits.Int, mandatory=True, minlen=3, maxlen=3, desc="voxels per side")


class _ToCubeOutputSpec(TraitedSpec):
    cube_file = File(exists=True, desc="network input, float32 (D, H, W), .npy")
    transform_file = File(exists=True, desc="the box of the image that the cube shows, JSON")


class ToCube(StepInterface):
    """Crop to the brain, resize and z-score."""

    input_spec = _ToCubeInputSpec
    output_spec = _ToCubeOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        import numpy as np

        from msnmo_bids.preprocessing.cube import to_cube

        cube, transform = to_cube(
            Path(self.inputs.in_file), Path(self.inputs.mask_file), shape=tuple(self.inputs.shape)
        )
        cube_file, transform_file = folder / "cube.npy", folder / "cube.json"
        np.save(cube_file, cube, allow_pickle=False)
        transform_file.write_text(transform.to_json(), encoding="utf-8")
        return {"cube_file": str(cube_file), "transform_file": str(transform_file)}
