"""Brain regions, lesions and their measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from msnmo_bids.interfaces.base import StepInterface
from msnmo_bids.settings import OUTLINE_CHOICES


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
    outline = traits.Enum(*OUTLINE_CHOICES, usedefault=True, desc="where a lesion ends")


class _SegmentOutputSpec(TraitedSpec):
    probability_file = File(exists=True, desc="lesion probability (RAS, float32)")
    lesion_file = File(exists=True, desc="lesion mask (RAS, uint8)")
    label_file = File(exists=True, desc="lesion labels (RAS, int32)")
    cam_files = traits.Dict(desc="class activation map by class (RAS, float32)")
    table_file = File(exists=True, desc="one row a lesion and their summary, JSON")


class SegmentLesions(StepInterface):
    """Bring the network's maps back to the FLAIR's grid and measure the lesions."""

    input_spec = _SegmentInputSpec
    output_spec = _SegmentOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        import nibabel as nib
        import numpy as np

        from msnmo_bids.interfaces.images import load_array, write_like
        from msnmo_bids.lesions.mask import rounded, segment, without_dropped
        from msnmo_bids.lesions.morphometry import lesion_table, summary
        from msnmo_bids.lesions.refinement import refine
        from msnmo_bids.lesions.regions import Regions, assign_regions
        from msnmo_bids.lesions.sites import lesion_sites
        from msnmo_bids.preprocessing.cube import CubeTransform, from_cube

        flair = Path(self.inputs.in_file)
        image = nib.Nifti1Image.from_filename(flair)
        zooms = nib.affines.voxel_sizes(image.affine)
        brain = load_array(Path(self.inputs.mask_file)) > 0
        transform = CubeTransform.from_json(Path(self.inputs.transform_file).read_text("utf-8"))
        probability = from_cube(np.load(self.inputs.probability_file), transform) * brain
        regions = Regions(np.load(self.inputs.region_file), np.load(self.inputs.mni_file))
        probability = refine(
            probability, image.get_fdata(dtype=np.float32), brain, tuple(zooms), regions,
            threshold=self.inputs.threshold, outline=self.inputs.outline,
        )  # fmt: skip
        probability = rounded(probability)
        voxel_volume = float(abs(np.linalg.det(image.affine[:3, :3])))
        lesions, labels = segment(
            probability,
            voxel_volume,
            threshold=self.inputs.threshold,
            min_volume=self.inputs.min_volume,
        )
        region_of = assign_regions(labels, regions.codes, zooms)
        sites = lesion_sites(labels, regions.to_mni, voxel_volume)
        table = lesion_table(labels, probability, region_of, image.affine, sites)
        probability = without_dropped(probability, lesions > 0, self.inputs.threshold)
        arrays = {"probability": probability, "lesion": lesions, "label": labels}
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
        registration = atlas_registration(regions.to_mni, image.affine)
        measures = {
            "Table": _rows(table),
            "Summary": {**summary(table), "AtlasRegistration": registration},
        }
        table_file.write_text(json.dumps(measures), encoding="utf-8")
        return {**written, "cam_files": cam_files, "table_file": str(table_file)}


def atlas_registration(to_mni: Any, affine: Any) -> dict[str, Any]:
    """Return where a scan lies in MNI space, for its diagnosis file.

    Parameters
    ----------
    to_mni : ndarray, (4, 4)
        Index of the scan to MNI mm.
    affine : ndarray, (4, 4)
        Index of the scan to RAS mm.

    Returns
    -------
    dict
        Space, and the matrix from RAS mm of the scan to mm in that space, whatever the order of
        the image's axes.

    >>> import numpy as np
    >>> atlas_registration(np.diag([2.0, 2, 2, 1]), np.diag([4.0, 4, 4, 1]))["Matrix"][0]
    [0.5, 0.0, 0.0, 0.0]
    """
    import numpy as np

    from msnmo_bids.lesions.regions import MNI_SPACE

    matrix = to_mni @ np.linalg.inv(affine)
    return {"Space": MNI_SPACE, "Matrix": [[round(float(v), 6) for v in row] for row in matrix]}


def _rows(table: Any) -> list[dict[str, Any]]:
    """Return a lesion table (list of dicts or a data frame) as a list of plain dicts."""
    rows = table.to_dict("records") if hasattr(table, "to_dict") else table
    return [{key: _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
