"""From the preprocessed FLAIR to lesions, their measures and class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from msnmo_bids.interfaces.lesions import ClassifyLesions, Predict, RegionMap, SegmentLesions
from msnmo_bids.interfaces.preprocessing import ToCube
from msnmo_bids.preprocessing.cube import ROBUST, Z_SCORE
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.vocabulary import LOOK_ALIKES
from msnmo_bids.workflows.resources import memory_gb
from msnmo_bids.workflows.steps import same

if TYPE_CHECKING:
    from msnmo_bids.model.weights import WeightsMetadata

_MAPS = ("probability_file", "lesion_file", "label_file")
_EXPLAINED = ("cam_files", "table_file")
_SCORES = ("class_probabilities", "class_votes")
_OUTPUTS = [*_MAPS, *_EXPLAINED, *_SCORES, "distance", "mni_file"]
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
    weights: Sequence[Path],
    metadata: WeightsMetadata,
    voxels: int,
    omp_nthreads: int,
) -> LiterateWorkflow:
    r"""Build the workflow that runs the joint network and measures what it finds.

    ::

        inputnode -> to_cube -> network -> segment -> outputnode
                 \-> regions ------------/      \-> classify -/

    The node that classifies the lesions is there if the weights do; else the network classifies.

    Inputs
    ------
    in_file, mask_file
        Preprocessed FLAIR and brain mask (RAS).

    Outputs
    -------
    probability_file, lesion_file, label_file, cam_files, mni_file
        On the scan's grid (RAS), the maps by class; and its index to MNI mm, (4, 4).
    table_file, class_probabilities, class_votes, distance
        As the nodes give them (`msnmo_bids.interfaces.lesions`).
    """
    workflow = LiterateWorkflow(name="lesion_wf")
    shape = list(_SLOPPY_CUBE if settings.sloppy else metadata.cube_shape)
    workflow.__desc__ = _description(settings, metadata, shape)
    inputnode = pe.Node(IdentityInterface(fields=["in_file", "mask_file"]), name="inputnode")
    outputnode = pe.Node(IdentityInterface(fields=_OUTPUTS), name="outputnode")
    to_cube = pe.Node(ToCube(shape=shape), name="to_cube", mem_gb=memory_gb("cube", voxels))
    network = _network_node(settings, weights, not metadata.classifies_lesions, omp_nthreads)
    regions = pe.Node(RegionMap(), name="regions", mem_gb=memory_gb("regions", voxels))
    segment = _segment_node(settings, metadata, voxels)
    if metadata.classifies_lesions:
        classify = ClassifyLesions(weights=[str(file) for file in weights])
        scored = mapped = pe.Node(classify, name="classify", mem_gb=memory_gb("segment", voxels))
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
        (scored, outputnode, same(*_SCORES)),
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
    averaged = [f"{1 + len(settings.ensemble)} networks"] if settings.ensemble else []
    averaged += ["the image and its mirror image"] if settings.tta else []
    mean = f", mean over {' and '.join(averaged)}" if averaged else ""
    scores, maps = _TEXT_OF[metadata.classifies_lesions]
    named = [name for name in metadata.class_names if name not in LOOK_ALIKES]
    return (
        f"The brain's bounding box and a margin were resized to {' x '.join(map(str, shape))} "
        f"voxels and {_NORMALIZED[metadata.normalization]}. A joint network for lesion "
        f"segmentation and classification of {' and '.join(named)}, implemented after Huang et al. "
        f"[@joint_model] (weights {metadata.name} {metadata.version}, "
        f"{_PRECISIONS[settings.precision]}{mean}), gave a lesion probability for each voxel."
        f"{scores} The probability was brought back to the scan's own grid (trilinear), masked "
        f"with the brain and cut at {settings.threshold:g}; connected lesions (26 neighbours) "
        f"smaller than {settings.min_lesion_volume:g} mm³ were removed. Lesions were assigned to "
        "candidate regions by a probabilistic atlas, registered affinely (robust least squares). "
        f"{maps} "
    )


def _segment_node(settings: ProcessingSettings, metadata: WeightsMetadata, voxels: int) -> pe.Node:
    segment = SegmentLesions(
        class_names=list(metadata.class_names),
        threshold=settings.threshold,
        min_volume=settings.min_lesion_volume,
    )
    return pe.Node(segment, name="segment", mem_gb=memory_gb("segment", voxels))


def _network_node(
    settings: ProcessingSettings, weights: Sequence[Path], classify: bool, omp_nthreads: int
) -> pe.Node:
    """Return the network's node; it takes a GPU slot only where CUDA was found to compute."""
    on_gpu = settings.device.startswith("cuda")
    return pe.Node(
        Predict(
            weights=[str(file) for file in weights],
            classify=classify,
            tta=settings.tta,
            device=settings.device,
            precision=settings.precision,
            random_seed=settings.random_seed,
            deterministic=settings.deterministic,
            use_gpu=on_gpu,
        ),
        name="network",
        n_procs=1 if on_gpu else omp_nthreads,
        mem_gb=memory_gb("network_cuda" if on_gpu else f"network_{settings.precision}"),
    )
