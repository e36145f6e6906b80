"""From the preprocessed FLAIR to lesions, their measures and class probabilities."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from msnmo_bids.decision import diseases_of
from msnmo_bids.errors import MsnmoError
from msnmo_bids.lesions.descriptors import describe_lesions
from msnmo_bids.lesions.morphometry import measure_lesions
from msnmo_bids.lesions.regions import Regions, locate_regions
from msnmo_bids.lesions.threshold import LesionCriteria, find_lesions
from msnmo_bids.preprocessing.cube import ROBUST, Z_SCORE, CubeTransform, from_cube
from msnmo_bids.preprocessing.nifti_file import load_array
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.workflows.nodes import node, save_array, step, write_like
from msnmo_bids.workflows.preprocessing import to_cube_step
from msnmo_bids.workflows.step_names import same

if TYPE_CHECKING:
    from msnmo_bids.model.weights import WeightsMetadata

_MAPS = ("probability_file", "lesion_file", "label_file")
_EXPLAINED = ("cam_files", "table_file")
_OUTPUTS = [*_MAPS, *_EXPLAINED, "class_probabilities", "distance", "mni_file"]
_SLOPPY_CUBE = (64, 64, 64)
#: By whether the lesions are classified: what is said of the scores, and of the maps.
_TEXT_OF = {
    False: (
        " It gave a score for each class as well.",
        "Class activation maps were summed over the classifier's three scales.",
    ),
    True: (
        "",
        "A branch of the network classified the scan by its lesions: from the size, shape and "
        "place of each, and its distances to ventricles and cortex, it made what the lesion adds "
        "to the score of each class; class activation maps hold that in the lesion's voxels.",
    ),
}
_NORMALIZED = {
    Z_SCORE: "z-scored over the brain",
    ROBUST: "normalised by the brain's median and interquartile range",
}
_PRECISIONS = {"fp32": "single precision", "bf16": "bfloat16 precision"}


def init_lesion_wf(
    *,
    settings: ProcessingSettings,
    weights: Path,
    metadata: WeightsMetadata,
    voxels: int,
    omp_nthreads: int,
) -> LiterateWorkflow:
    r"""Build the workflow that runs the joint network and measures what it finds.

    ::

        inputnode -> to_cube -> network -> segment -> outputnode
                 \-> regions ------------/      \-> classify -/

    Of FLAIR and brain mask (RAS); ``classify`` is there if the weights classify by the lesions.

    Outputs
    -------
    probability_file, lesion_file, label_file, cam_files, mni_file
        On the scan's grid (RAS), the maps by class; and its index to MNI mm, (4, 4).
    table_file, class_probabilities, distance
        As the nodes give them (`segment_step`, `classify_step`, `network_step`).
    """
    workflow = LiterateWorkflow(name="lesion_wf")
    shape = list(_SLOPPY_CUBE if settings.sloppy else metadata.cube_shape)
    workflow.__desc__ = _description(settings, metadata, shape)
    inputnode = pe.Node(IdentityInterface(fields=["in_file", "mask_file"]), name="inputnode")
    outputnode = pe.Node(IdentityInterface(fields=_OUTPUTS), name="outputnode")
    to_cube = node(to_cube_step(shape=shape), "to_cube", "cube", voxels)
    network = _network_node(settings, weights, not metadata.classifies_lesions, omp_nthreads)
    regions = node(regions_step(), "regions", "regions", voxels)
    measure = segment_step(
        class_names=list(metadata.class_names),
        threshold=settings.threshold,
        min_volume=settings.min_lesion_volume,
    )
    segment = node(measure, "segment", "segment", voxels)
    if metadata.classifies_lesions:
        classify = classify_step(weights=str(weights))
        scored = mapped = node(classify, "classify", "segment", voxels)
        workflow.connect([(segment, scored, same("descriptor_file", "label_file", "table_file"))])
    else:
        scored, mapped = network, segment
        workflow.connect([(network, segment, same("cam_file"))])
    workflow.connect([
        (inputnode, to_cube, same("in_file", "mask_file")),
        (inputnode, regions, same("in_file", "mask_file")),
        (inputnode, segment, same("in_file", "mask_file")),
        (to_cube, network, same("cube_file")),
        (to_cube, segment, same("transform_file")),
        (network, segment, same("probability_file")),
        (network, outputnode, same("distance")),
        (scored, outputnode, same("class_probabilities")),
        (regions, segment, same("region_file", "mni_file")),
        (regions, outputnode, same("mni_file")),
        (segment, outputnode, same(*_MAPS)),
        (mapped, outputnode, same(*_EXPLAINED)),
    ])  # fmt: skip
    return workflow


def _description(
    settings: ProcessingSettings, metadata: WeightsMetadata, shape: Sequence[int]
) -> str:
    """Return what the methods text says of the network and of its lesions."""
    scores, maps = _TEXT_OF[metadata.classifies_lesions]
    named = diseases_of(metadata.class_names)
    return (
        f"The brain's bounding box and a margin were resized to {' x '.join(map(str, shape))} "
        f"voxels and {_NORMALIZED[metadata.normalization]}. A joint network for lesion "
        f"segmentation and classification of {' and '.join(named)}, implemented after Huang et al. "
        f"[@joint_model] (weights {metadata.name} {metadata.version}, "
        f"{_PRECISIONS[settings.precision]}), gave a lesion probability for each voxel."
        f"{scores} The probability was brought back to the scan's own grid (trilinear), masked "
        f"with the brain and cut at {settings.threshold:g}; connected lesions (26 neighbours) "
        f"smaller than {settings.min_lesion_volume:g} mm³ were removed. Lesions were assigned to "
        "candidate regions by a probabilistic atlas, registered affinely (robust least squares). "
        f"{maps} "
    )


def _network_node(
    settings: ProcessingSettings, weights: Path, classify: bool, omp_nthreads: int
) -> pe.Node:
    """Return the network's node; it takes a GPU slot only where CUDA was found to compute.

    On a CPU it counts for one core less than it has threads, so that the regions are found at the
    same time, and whoever ends first leaves no core idle.
    """
    on_gpu = settings.device.startswith("cuda")
    predict = network_step(
        weights=str(weights),
        classify=classify,
        device=settings.device,
        precision=settings.precision,
        deterministic=settings.deterministic,
        use_gpu=on_gpu,
    )
    kind = "network_cuda" if on_gpu else f"network_{settings.precision}"
    network = node(predict, "network", kind, n_procs=1 if on_gpu else max(1, omp_nthreads - 1))
    network.inputs.num_threads = 1 if on_gpu else omp_nthreads
    return network


@step("probability_file", "distance", "cam_file", "class_probabilities", library="torch")
def network_step(
    folder: Path,
    cube_file: Path,
    weights: str,
    classify: bool = True,
    device: str = "cpu",
    precision: str = "fp32",
    deterministic: bool = False,
    num_threads: int = 1,
    use_gpu: bool = False,
) -> tuple[Any, ...]:
    """Predict lesions and classes of one scan from the network's input, (D, H, W), ``.npy``.

    The lesion probability, (D, H, W), and the class activation maps, (K, D, H, W), are ``.npy``;
    what concerns classes is None where this network does not `classify`. The distance is that from
    the training scans. With `use_gpu` the node takes one of the plugin's slots.

    Raises
    ------
    MsnmoError
        If the weights lack a task that is wanted, or the network's output is not finite.
    """
    from msnmo_bids.model.inference import predict

    found = predict(
        np.load(cube_file, allow_pickle=False),
        weights,
        device=device,
        precision=precision,
        n_threads=num_threads,
        deterministic=deterministic,
    )
    probability = _checked(found.probability, "segmentation", weights)
    lesions = (save_array(probability, folder / "probability.npy"), found.distance)
    if not classify:
        return (*lesions, None, None)
    cams = _checked(found.cams, "classification", weights)
    scores = _checked(found.class_probabilities, "classification", weights)
    cam_file = save_array(cams, folder / "cams.npy")
    return (*lesions, cam_file, _by_class(found.class_names, scores))


def _by_class(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))


def _checked(array: np.ndarray | None, task: str, weights: str) -> np.ndarray:
    """Return the network's output, unless it is of no use."""
    assert array is not None, "find_weights refuses weights without the task"
    if not np.isfinite(array).all():
        raise MsnmoError(
            f"the network's {task} is not finite",
            file=weights,
            remedy="Try --precision fp32; if that fails too, get the weights again",
        )
    return array


@step("region_file", "mni_file")
def regions_step(folder: Path, in_file: Path, mask_file: Path) -> tuple[Path, Path]:
    """Find anatomical regions: codes, int8 (X, Y, Z), and the index to MNI mm, (4, 4), ``.npy``."""
    image = nib.Nifti1Image.from_filename(in_file)
    values = np.asanyarray(image.dataobj, dtype=np.float32)
    zooms = nib.affines.voxel_sizes(image.affine)
    regions = locate_regions(values, load_array(mask_file) > 0, zooms)
    return (
        save_array(regions.codes, folder / "regions.npy"),
        save_array(regions.to_mni, folder / "to_mni.npy"),
    )


@step("probability_file", "lesion_file", "label_file", "cam_files", "table_file", "descriptor_file")
def segment_step(
    folder: Path,
    in_file: Path,
    mask_file: Path,
    transform_file: Path,
    probability_file: Path,
    region_file: Path,
    mni_file: Path,
    threshold: float,
    min_volume: float,
    cam_file: Path | None = None,
    class_names: Sequence[str] = (),
) -> tuple[Any, ...]:
    """Bring the network's maps back to the FLAIR's grid (RAS) and measure the lesions.

    Probability and maps are float32, the lesion mask uint8, the labels int32; the table is JSON,
    one row per lesion and the summary; the descriptors are (N, D), ``.npy``.
    """
    affine = nib.Nifti1Image.from_filename(in_file).affine
    brain = load_array(mask_file) > 0
    transform = CubeTransform.from_json(transform_file.read_text("utf-8"))
    regions = Regions(np.load(region_file), np.load(mni_file))
    lesions = find_lesions(
        from_cube(np.load(probability_file), transform) * brain,
        float(abs(np.linalg.det(affine[:3, :3]))),
        LesionCriteria(threshold, min_volume),
    )
    arrays = {"probability": lesions.probability, "lesion": lesions.mask, "label": lesions.labels}
    written = [write_like(array, in_file, folder / f"{n}.nii") for n, array in arrays.items()]
    cam_files: dict[str, Path] = {}
    cams = [] if cam_file is None else np.load(cam_file, mmap_mode="r")
    for name, cam in zip(class_names if cam_file else (), cams, strict=True):
        native = (from_cube(np.asarray(cam), transform) * brain).astype(np.float32)
        cam_files[name] = write_like(native, in_file, folder / f"cam_{len(cam_files)}.nii")
    descriptors = describe_lesions(lesions.labels, regions, nib.affines.voxel_sizes(affine))
    measures = measure_lesions(lesions, regions, affine, descriptors)
    table_file = folder / "lesions.json"
    table_file.write_text(json.dumps(measures), encoding="utf-8")
    return (*written, cam_files, table_file, save_array(descriptors, folder / "descriptors.npy"))


@step("cam_files", "table_file", "class_probabilities", library="torch")
def classify_step(
    folder: Path, weights: str, descriptor_file: Path, label_file: Path, table_file: Path
) -> tuple[Any, ...]:
    """Classify a scan by its lesions, and tell what each adds, in the maps and in the table."""
    from msnmo_bids.model.cam import lesion_activation_maps
    from msnmo_bids.model.inference import classify_lesions

    found = classify_lesions(np.load(descriptor_file), weights)
    maps = lesion_activation_maps(load_array(label_file), found.contributions)
    measures = json.loads(table_file.read_text(encoding="utf-8"))
    diseases = diseases_of(found.class_names)
    margins = found.margins(diseases if len(diseases) > 1 else found.class_names)
    for row, adds, without in zip(
        measures["Table"], margins.contributions, margins.without, strict=True
    ):
        row |= {"contribution": float(adds), "margin_without": float(without)}
    measures["Summary"]["Margin"] = {
        "Class": margins.first,
        "Over": margins.second,
        "Value": round(margins.margin, 4),
        "Bias": round(margins.bias, 4),
    }
    out = folder / "lesions.json"
    out.write_text(json.dumps(measures), encoding="utf-8")
    names = found.class_names
    cam_files = {
        name: write_like(values, label_file, folder / f"cam_{number}.nii")
        for number, (name, values) in enumerate(zip(names, maps, strict=True))
    }
    return cam_files, out, _by_class(names, found.class_probabilities)
