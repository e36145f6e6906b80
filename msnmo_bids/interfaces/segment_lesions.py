"""Brain regions, lesions and their measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from msnmo_bids.interfaces.base import StepInterface


class _RegionMapInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="preprocessed FLAIR (RAS)")
    mask_file = File(exists=True, mandatory=True, desc="brain mask")


class _RegionMapOutputSpec(TraitedSpec):
    region_file = File(exists=True, desc="region codes, int8 (X, Y, Z), .npy")
    mni_file = File(exists=True, desc="index to MNI mm (4, 4), .npy")


class RegionMap(StepInterface):
    """Anatomical regions on the grid of the FLAIR."""

    input_spec = _RegionMapInputSpec
    output_spec = _RegionMapOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        import nibabel as nib
        import numpy as np

        from msnmo_bids.interfaces.images import load_array
        from msnmo_bids.lesions.regions import locate_regions

        image = nib.Nifti1Image.from_filename(self.inputs.in_file)
        values = np.asanyarray(image.dataobj, dtype=np.float32)
        brain = load_array(Path(self.inputs.mask_file)) > 0
        regions = locate_regions(values, brain, nib.affines.voxel_sizes(image.affine))
        region_file, mni_file = folder / "regions.npy", folder / "to_mni.npy"
        np.save(region_file, regions.codes, allow_pickle=False)
        np.save(mni_file, regions.to_mni, allow_pickle=False)
        return {"region_file": str(region_file), "mni_file": str(mni_file)}


class _SegmentInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="preprocessed FLAIR (RAS)")
    mask_file = File(exists=True, mandatory=True, desc="brain mask")
    transform_file = File(exists=True, mandatory=True, desc="the cube's box, JSON")
    probability_file = File(exists=True, mandatory=True, desc="probability on the cube, .npy")
    cam_file = File(exists=True, mandatory=True, desc="CAMs on the cube (K, D, H, W), .npy")
    region_file = File(exists=True, mandatory=True, desc="region codes, .npy")
    mni_file = File(exists=True, mandatory=True, desc="index to MNI mm (4, 4), .npy")
    class_names = traits.List(traits.Str, mandatory=True, desc="order of the CAMs")
    threshold = traits.Float(mandatory=True, desc="lesion above this probability")
    min_volume = traits.Float(mandatory=True, desc="smallest lesion that is kept (mm³)")


class _SegmentOutputSpec(TraitedSpec):
    probability_file = File(exists=True, desc="lesion probability (RAS, float32)")
    lesion_file = File(exists=True, desc="lesion mask (RAS, uint8)")
    label_file = File(exists=True, desc="lesion labels (RAS, int32)")
    cam_files = traits.Dict(desc="class activation map by class (RAS, float32)")
    table_file = File(exists=True, desc="JSON: one row per lesion, summary")


class SegmentLesions(StepInterface):
    """Bring the network's maps back to the FLAIR's grid and measure the lesions."""

    input_spec = _SegmentInputSpec
    output_spec = _SegmentOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        import nibabel as nib
        import numpy as np

        from msnmo_bids.interfaces.images import load_array, write_like
        from msnmo_bids.lesions.morphometry import measure_lesions
        from msnmo_bids.lesions.pipeline import LesionCriteria, find_lesions
        from msnmo_bids.lesions.regions import Regions
        from msnmo_bids.preprocessing.cube import CubeTransform, from_cube

        flair = Path(self.inputs.in_file)
        affine = nib.Nifti1Image.from_filename(flair).affine
        brain = load_array(Path(self.inputs.mask_file)) > 0
        transform = CubeTransform.from_json(Path(self.inputs.transform_file).read_text("utf-8"))
        regions = Regions(np.load(self.inputs.region_file), np.load(self.inputs.mni_file))
        lesions = find_lesions(
            from_cube(np.load(self.inputs.probability_file), transform) * brain,
            float(abs(np.linalg.det(affine[:3, :3]))),
            LesionCriteria(self.inputs.threshold, self.inputs.min_volume),
        )
        arrays = {
            "probability": lesions.probability,
            "lesion": lesions.mask,
            "label": lesions.labels,
        }
        written = {
            f"{name}_file": str(write_like(array, flair, folder / f"{name}.nii"))
            for name, array in arrays.items()
        }
        cams = np.load(self.inputs.cam_file, mmap_mode="r")
        cam_files: dict[str, str] = {}
        for name, cam in zip(self.inputs.class_names, cams, strict=True):
            native = (from_cube(np.asarray(cam), transform) * brain).astype(np.float32)
            cam_files[name] = str(write_like(native, flair, folder / f"cam_{len(cam_files)}.nii"))
        table_file = folder / "lesions.json"
        measures = measure_lesions(lesions, regions, affine)
        table_file.write_text(json.dumps(measures), encoding="utf-8")
        return {**written, "cam_files": cam_files, "table_file": str(table_file)}
