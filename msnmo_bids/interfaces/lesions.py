"""Nodes from the network's input to lesions, their measures and class probabilities."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from msnmo_bids.errors import MsnmoError
from msnmo_bids.interfaces.base import BrainInputSpec, StepInterface, load_array, write_like
from msnmo_bids.lesions.descriptors import describe_lesions
from msnmo_bids.lesions.morphometry import measure_lesions
from msnmo_bids.lesions.regions import Regions, locate_regions
from msnmo_bids.lesions.threshold import LesionCriteria, find_lesions
from msnmo_bids.preprocessing.cube import CubeTransform, from_cube


class _PredictInputSpec(BaseInterfaceInputSpec):
    cube_file = File(exists=True, mandatory=True, desc="network input (D, H, W), .npy")
    weights = traits.List(
        File(exists=True), minlen=1, mandatory=True, desc="NAME.safetensors; of several the mean"
    )
    classify = traits.Bool(True, usedefault=True, desc="whether this network gives the class")
    tta = traits.Bool(False, usedefault=True, desc="mean with the mirror image, left to right")
    device = traits.Str("cpu", usedefault=True, desc="cpu, cuda or cuda:N")
    precision = traits.Enum("fp32", "bf16", usedefault=True, desc="arithmetic")
    random_seed = traits.Int(0, usedefault=True, desc="seed of torch's random numbers")
    deterministic = traits.Bool(False, usedefault=True, desc="deterministic algorithms only")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="threads")
    use_gpu = traits.Bool(
        False, usedefault=True, nohash=True, desc="takes one of the plugin's GPU slots"
    )


class _PredictOutputSpec(TraitedSpec):
    probability_file = File(exists=True, desc="lesion probability (D, H, W), .npy")
    cam_file = File(exists=True, desc="class activation maps (K, D, H, W), .npy, if wanted")
    class_probabilities = traits.Dict(desc="calibrated probability by class, if wanted")
    class_votes = traits.List(traits.Dict, desc="the same of each network and view")
    distance = traits.Either(None, traits.Float, desc="from the training scans")


class Predict(StepInterface):
    """Lesion probability, class probabilities and class activation maps of one scan.

    The weights are read once a worker process (``model.weights.load_weights_cached``).

    Raises
    ------
    MsnmoError
        If the weights lack a task that is wanted, or the network's output is not finite.
    """

    library = "torch"
    input_spec = _PredictInputSpec
    output_spec = _PredictOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        from msnmo_bids.model.inference import predict

        prediction = predict(
            np.load(self.inputs.cube_file, allow_pickle=False),
            *self.inputs.weights,
            tta=self.inputs.tta,
            device=self.inputs.device,
            precision=self.inputs.precision,
            n_threads=self.inputs.num_threads,
            deterministic=self.inputs.deterministic,
            seed=self.inputs.random_seed,
        )
        weights = ", ".join(self.inputs.weights)
        probability = _checked(prediction.probability, "segmentation", weights)
        probability_file = folder / "probability.npy"
        np.save(probability_file, probability, allow_pickle=False)
        outputs = {"probability_file": str(probability_file), "distance": prediction.distance}
        if not self.inputs.classify:
            return outputs
        cams = _checked(prediction.cams, "classification", weights)
        values = _checked(prediction.class_probabilities, "classification", weights)
        votes = _checked(prediction.class_votes, "classification", weights)
        cam_file = folder / "cams.npy"
        np.save(cam_file, cams, allow_pickle=False)
        return {
            **outputs,
            "cam_file": str(cam_file),
            "class_probabilities": _by_class(prediction.class_names, values),
            "class_votes": [_by_class(prediction.class_names, vote) for vote in votes],
        }


def _by_class(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """Return numbers by the names of the classes."""
    return dict(zip(names, values.tolist(), strict=True))


def _checked(array: np.ndarray | None, task: str, weights: str) -> np.ndarray:
    """Return the network's output, or say why it is of no use."""
    if array is None:
        raise MsnmoError(
            f"these weights were trained without the {task} task",
            file=weights,
            remedy="Name the weights of the joint model (--weights)",
        )
    if not np.isfinite(array).all():
        raise MsnmoError(
            f"the network's {task} is not finite",
            file=weights,
            remedy="Try --precision fp32; if that fails too, get the weights again",
        )
    return array


class _RegionMapOutputSpec(TraitedSpec):
    region_file = File(exists=True, desc="region codes, int8 (X, Y, Z), .npy")
    mni_file = File(exists=True, desc="index to MNI mm (4, 4), .npy")


class RegionMap(StepInterface):
    """Anatomical regions on the grid of the FLAIR."""

    input_spec = BrainInputSpec
    output_spec = _RegionMapOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        image = nib.Nifti1Image.from_filename(self.inputs.in_file)
        values = np.asanyarray(image.dataobj, dtype=np.float32)
        brain = load_array(Path(self.inputs.mask_file)) > 0
        regions = locate_regions(values, brain, nib.affines.voxel_sizes(image.affine))
        region_file, mni_file = folder / "regions.npy", folder / "to_mni.npy"
        np.save(region_file, regions.codes, allow_pickle=False)
        np.save(mni_file, regions.to_mni, allow_pickle=False)
        return {"region_file": str(region_file), "mni_file": str(mni_file)}


class _SegmentInputSpec(BrainInputSpec):
    transform_file = File(exists=True, mandatory=True, desc="the cube's box, JSON")
    probability_file = File(exists=True, mandatory=True, desc="probability on the cube, .npy")
    cam_file = File(exists=True, desc="CAMs on the cube (K, D, H, W), .npy")
    region_file = File(exists=True, mandatory=True, desc="region codes, .npy")
    mni_file = File(exists=True, mandatory=True, desc="index to MNI mm (4, 4), .npy")
    class_names = traits.List(traits.Str, desc="order of the CAMs")
    threshold = traits.Float(mandatory=True, desc="lesion above this probability")
    min_volume = traits.Float(mandatory=True, desc="smallest lesion that is kept (mm³)")


class _SegmentOutputSpec(TraitedSpec):
    probability_file = File(exists=True, desc="lesion probability (RAS, float32)")
    lesion_file = File(exists=True, desc="lesion mask (RAS, uint8)")
    label_file = File(exists=True, desc="lesion labels (RAS, int32)")
    cam_files = traits.Dict(desc="class activation map by class (RAS, float32), where given")
    table_file = File(exists=True, desc="JSON: one row per lesion, summary")
    descriptor_file = File(exists=True, desc="descriptors (N, D) of the lesions, .npy")


class SegmentLesions(StepInterface):
    """Bring the network's maps back to the FLAIR's grid and measure the lesions."""

    input_spec = _SegmentInputSpec
    output_spec = _SegmentOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
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
        cam_files: dict[str, str] = {}
        if self.inputs.cam_file:
            cams = np.load(self.inputs.cam_file, mmap_mode="r")
            for name, cam in zip(self.inputs.class_names, cams, strict=True):
                native = (from_cube(np.asarray(cam), transform) * brain).astype(np.float32)
                file = write_like(native, flair, folder / f"cam_{len(cam_files)}.nii")
                cam_files[name] = str(file)
        descriptors = describe_lesions(lesions.labels, regions, nib.affines.voxel_sizes(affine))
        table_file, descriptor_file = folder / "lesions.json", folder / "descriptors.npy"
        np.save(descriptor_file, descriptors, allow_pickle=False)
        measures = measure_lesions(lesions, regions, affine, descriptors)
        table_file.write_text(json.dumps(measures), encoding="utf-8")
        return {
            **written,
            "cam_files": cam_files,
            "table_file": str(table_file),
            "descriptor_file": str(descriptor_file),
        }


class _ClassifyInputSpec(BaseInterfaceInputSpec):
    weights = traits.List(
        File(exists=True), minlen=1, mandatory=True, desc="NAME.safetensors; of several the mean"
    )
    descriptor_file = File(exists=True, mandatory=True, desc="descriptors (N, D), .npy")
    label_file = File(exists=True, mandatory=True, desc="lesion labels (RAS)")
    table_file = File(exists=True, mandatory=True, desc="JSON: one row per lesion, summary")


class _ClassifyOutputSpec(TraitedSpec):
    cam_files = traits.Dict(desc="class activation map by class (RAS, float32)")
    table_file = File(exists=True, desc="JSON: the same with what each lesion adds")
    class_probabilities = traits.Dict(desc="calibrated probability by class")
    class_votes = traits.List(traits.Dict, desc="the same of each network")


class ClassifyLesions(StepInterface):
    """Classify a scan by its lesions, and tell what each adds."""

    library = "torch"
    input_spec = _ClassifyInputSpec
    output_spec = _ClassifyOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        from msnmo_bids.model.cam import lesion_activation_maps
        from msnmo_bids.model.inference import classify_lesions

        found = classify_lesions(np.load(self.inputs.descriptor_file), *self.inputs.weights)
        label_file = Path(self.inputs.label_file)
        maps = lesion_activation_maps(load_array(label_file), found.contributions)
        measures = json.loads(Path(self.inputs.table_file).read_text(encoding="utf-8"))
        margins = found.margins()
        for row, adds, without in zip(
            measures["Table"], margins.contributions, margins.without, strict=True
        ):
            row |= {"contribution": float(adds), "margin_without": float(without)}
        measures["Summary"]["Margin"] = {
            "Class": margins.first,
            "Over": margins.second,
            "Value": margins.margin,
            "Bias": margins.bias,
        }
        table_file = folder / "lesions.json"
        table_file.write_text(json.dumps(measures), encoding="utf-8")
        names = found.class_names
        return {
            "cam_files": {
                name: str(write_like(values, label_file, folder / f"cam_{number}.nii"))
                for number, (name, values) in enumerate(zip(names, maps, strict=True))
            },
            "table_file": str(table_file),
            "class_probabilities": _by_class(names, found.class_probabilities),
            "class_votes": [_by_class(names, vote) for vote in found.class_votes],
        }
