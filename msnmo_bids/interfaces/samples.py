"""The last node of a scan that is prepared for training: write its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import File, TraitedSpec, traits

from msnmo_bids.errors import BadInputError
from msnmo_bids.interfaces.base import PreprocessedInputSpec, StepInterface, load_array
from msnmo_bids.labelled.lesion_masks import read_lesion_mask
from msnmo_bids.labelled.samples import NativeGrid, write_sample_file
from msnmo_bids.preprocessing.cube import CubeTransform
from msnmo_bids.version import get_version


class _WriteSampleInputSpec(PreprocessedInputSpec):
    lesion_file = traits.Str(desc="manual lesion mask, as it came")
    cube_file = File(exists=True, mandatory=True, desc="network input (D, H, W), .npy")
    transform_file = File(exists=True, mandatory=True, desc="the box that the cube shows, JSON")
    out_file = traits.Str(mandatory=True, desc="file to write, .npz")


class _WriteSampleOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="cube, lesions and the way back, .npz")


class WriteSample(StepInterface):
    """Bring the manual mask onto the cube, and write all that a training needs of a scan.

    Raises
    ------
    BadInputError
        If the manual mask cannot be read or lies on another grid.
    """

    input_spec = _WriteSampleInputSpec
    output_spec = _WriteSampleOutputSpec
    always_run = True

    def _compute(self, folder: Path) -> dict[str, Any]:
        given = self.inputs
        mask_file = Path(given.mask_file)
        sizes = nib.affines.voxel_sizes(nib.Nifti1Image.from_filename(mask_file).affine)
        x, y, z = (float(size) for size in sizes)
        grid = NativeGrid(
            CubeTransform.from_json(Path(given.transform_file).read_text(encoding="utf-8")),
            load_array(mask_file) > 0,
            (x, y, z),
        )
        flags = [*given.info.get("flags", ()), *(given.mask_flags or ())]
        lesions = None
        if given.lesion_file:
            lesions = np.asarray(read_lesion_mask(Path(given.lesion_file)).dataobj)
            if lesions.shape != grid.brain.shape:
                raise BadInputError("lesion mask on another grid", file=given.lesion_file)
        record = {
            "SkullStripping": given.skull_stripping,
            "BiasCorrection": given.bias_correction,
            "Flags": flags,
            "LesionsOutsideBrain": _share_outside(lesions, grid.brain),
            "Version": get_version(),
        }
        target = Path(given.out_file)
        image = np.load(given.cube_file)
        write_sample_file(target, image=image, grid=grid, lesions=lesions, record=record)
        return {"out_file": str(target)}


def _share_outside(lesions: Any, brain: Any) -> float | None:
    """Return which part of the lesions the brain mask cuts off; None without lesions."""
    if lesions is None or not lesions.any():
        return None
    return round(float((lesions[~brain] > 0).sum() / (lesions > 0).sum()), 4)
