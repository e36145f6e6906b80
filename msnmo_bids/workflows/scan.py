"""The work on one scan, from the raw FLAIR to its derivatives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from msnmo_bids.interfaces.conform import Conform
from msnmo_bids.interfaces.cube import ToCube
from msnmo_bids.interfaces.derivatives import WriteDerivatives
from msnmo_bids.interfaces.figures import Figures
from msnmo_bids.interfaces.lesions import RegionMap, SegmentLesions
from msnmo_bids.interfaces.network import Predict
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.workflows.bias import init_bias_correction_wf
from msnmo_bids.workflows.resources import memory_gb, voxel_count
from msnmo_bids.workflows.skullstrip import init_skull_strip_wf

if TYPE_CHECKING:
    from msnmo_bids.bids.scans import Scan
    from msnmo_bids.model.weights import WeightsMetadata

_SLOPPY_CUBE = (64, 64, 64)


def init_scan_wf(
    *,
    scan: Scan,
    settings: ProcessingSettings,
    weights: Path,
    metadata: WeightsMetadata,
    provenance: dict[str, Any],
    output_dir: Path,
    omp_nthreads: int = 1,
    name: str | None = None,
) -> Workflow:
    r"""Build the workflow of one scan.

    ::

        conform -> skull_strip_wf -> bias_correction_wf -> to_cube -> network -> segment
                                                       \-> regions -----------/   |
                                            write_derivatives <- figures <--------/

    Parameters
    ----------
    scan : Scan
        The raw FLAIR.
    settings : ProcessingSettings
        With device, precision and tools resolved (no ``auto``).
    weights : Path
        ``NAME.safetensors``.
    metadata : WeightsMetadata
        What is known of the weights.
    provenance : dict
        :func:`~msnmo_bids.workflows.provenance.run_record` of the run.
    output_dir : Path
        Root of the derivatives.
    omp_nthreads : int
        Threads of one node.
    name : str, optional
        Name of the workflow; made from the scan's name.

    Inputs
    ------
    flair
        The raw FLAIR (set from ``scan``).

    Outputs
    -------
    out_files
        Paths of all derivatives, relative to ``output_dir``.
    """
    workflow = Workflow(name=name or f"scan_{scan.node_name}_wf")
    voxels = voxel_count(scan.path)
    shape = list(_SLOPPY_CUBE if settings.sloppy else metadata.cube_shape)
    sides = " x ".join(str(side) for side in shape)
    workflow.__desc__ = (
        "The T2-FLAIR was reoriented to RAS, and its header's two orientations were made equal. "
    )
    workflow.__postdesc__ = (
        f"The brain's bounding box and a margin were resized to {sides} voxels and z-scored over "
        "the brain. The joint network of lesion segmentation and classification "
        f"({metadata.name} {metadata.version}, {settings.precision}) gave a lesion probability, "
        "which was brought back to the scan's grid (trilinear), masked with the brain and cut at "
        f"{settings.threshold:g}; connected lesions (26 neighbours) smaller than "
        f"{settings.min_lesion_volume:g} mm³ were removed. "
    )
    inputnode = pe.Node(IdentityInterface(fields=["flair"]), name="inputnode")
    inputnode.inputs.flair = str(scan.path)
    outputnode = pe.Node(IdentityInterface(fields=["out_files"]), name="outputnode")
    conform = pe.Node(Conform(), name="conform", mem_gb=memory_gb("conform", voxels))
    skull_strip_wf = init_skull_strip_wf(
        tool="skip" if scan.skull_stripped else settings.skull_strip,
        bet_frac=settings.bet_frac,
        voxels=voxels,
        omp_nthreads=omp_nthreads,
    )
    bias_correction_wf = init_bias_correction_wf(
        tool=settings.bias_correction,
        sloppy=settings.sloppy,
        voxels=voxels,
        omp_nthreads=omp_nthreads,
    )
    to_cube = pe.Node(ToCube(shape=shape), name="to_cube", mem_gb=memory_gb("cube", voxels))
    network = _network_node(settings, weights, omp_nthreads)
    regions = pe.Node(
        RegionMap(random_seed=settings.random_seed),
        name="regions",
        n_procs=omp_nthreads,
        mem_gb=memory_gb("regions", voxels),
    )
    segment = pe.Node(
        SegmentLesions(
            class_names=list(metadata.class_names),
            threshold=settings.threshold,
            min_volume=settings.min_lesion_volume,
        ),
        name="segment",
        mem_gb=memory_gb("segment", voxels),
    )
    figures = pe.Node(Figures(), name="figures", mem_gb=memory_gb("figures", voxels))
    write_derivatives = pe.Node(
        WriteDerivatives(
            native_file=str(scan.path),
            relative=scan.relative,
            subject=scan.subject,
            prefix=scan.prefix,
            folder=scan.folder,
            output_dir=str(output_dir),
            provenance=provenance,
        ),
        name="write_derivatives",
        mem_gb=memory_gb("derivatives", voxels),
    )
    workflow.connect([
        (inputnode, conform, [("flair", "in_file")]),
        (conform, skull_strip_wf, [("out_file", "inputnode.in_file")]),
        (conform, bias_correction_wf, [("out_file", "inputnode.in_file")]),
        (conform, figures, [("out_file", "raw_file")]),
        (conform, write_derivatives, [("info", "info")]),
        (skull_strip_wf, bias_correction_wf, [("outputnode.mask_file", "inputnode.mask_file")]),
        (skull_strip_wf, write_derivatives, [("outputnode.tool", "skull_stripping"),
                                             ("outputnode.flags", "mask_flags")]),
        (bias_correction_wf, write_derivatives, [("outputnode.tool", "bias_correction")]),
        (to_cube, network, [("cube_file", "cube_file")]),
        (to_cube, segment, [("transform_file", "transform_file")]),
        (network, segment, [("probability_file", "probability_file"), ("cam_file", "cam_file")]),
        (network, write_derivatives, [("class_probabilities", "class_probabilities")]),
        (regions, segment, [("region_file", "region_file")]),
        (segment, figures, [("lesion_file", "lesion_file"), ("label_file", "label_file"),
                            ("cam_files", "cam_files")]),
        (segment, write_derivatives, [("probability_file", "probability_file"),
                                      ("lesion_file", "lesion_file"),
                                      ("label_file", "label_file"),
                                      ("cam_files", "cam_files"),
                                      ("table_file", "table_file")]),
        (figures, write_derivatives, [("figures", "figures")]),
        (write_derivatives, outputnode, [("out_files", "out_files")]),
    ])  # fmt: skip
    for node in (to_cube, regions, segment):
        workflow.connect(bias_correction_wf, "outputnode.out_file", node, "in_file")
    for node in (figures, write_derivatives):
        workflow.connect(bias_correction_wf, "outputnode.out_file", node, "preproc_file")
    for node in (to_cube, regions, segment, figures, write_derivatives):
        workflow.connect(skull_strip_wf, "outputnode.mask_file", node, "mask_file")
    return workflow


def _network_node(settings: ProcessingSettings, weights: Path, omp_nthreads: int) -> pe.Node:
    """Return the network's node; it takes a GPU slot only where CUDA was found to compute."""
    on_gpu = settings.device.startswith("cuda")
    return pe.Node(
        Predict(
            weights=str(weights),
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
