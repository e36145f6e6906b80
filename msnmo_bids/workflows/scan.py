"""The whole workflow of a run, and the work on one scan, from the raw FLAIR to derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from msnmo_bids.bids.resume import glance
from msnmo_bids.interfaces.scan import Figures, Quality, WriteDerivatives
from msnmo_bids.reports.methods import calibration
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.version import get_version
from msnmo_bids.vocabulary import LESION_BRANCH
from msnmo_bids.workflows.lesions import init_lesion_wf
from msnmo_bids.workflows.preprocessing import init_preprocessing_wf
from msnmo_bids.workflows.provenance import methods_text, run_record
from msnmo_bids.workflows.resources import memory_gb, voxel_count
from msnmo_bids.workflows.steps import LAST_NODE, WORKFLOW, same, subject_workflow_name

if TYPE_CHECKING:
    from msnmo_bids.bids.scans import Scan
    from msnmo_bids.model.weights import WeightsMetadata


def init_msnmo_wf(
    *,
    scans: Sequence[Scan],
    settings: ProcessingSettings,
    weights: Sequence[Path],
    output_dir: Path,
    work_dir: Path,
    omp_nthreads: int = 1,
) -> pe.Workflow:
    """Build the workflow of a run: one workflow per participant, in it one per scan.

    Parameters
    ----------
    scans : sequence of Scan
        What to process.
    settings : ProcessingSettings
        With device, precision and tools resolved (no ``auto``).
    weights : sequence of Path
        ``NAME.safetensors``, with ``NAME.json`` beside it; of several the mean is taken.
    output_dir, work_dir : Path
        Root of the derivatives; folder for what is in between.
    omp_nthreads : int
        Threads of one node.

    Raises
    ------
    WeightsError
        If the description of the weights cannot be read.
    """
    from msnmo_bids.model.weights import read_metadata

    metadata = read_metadata(weights[0])
    shared: dict[str, Any] = {
        "settings": settings,
        "weights": [Path(file).absolute() for file in weights],
        "metadata": metadata,
        "provenance": run_record(settings, metadata, get_version()),
        "output_dir": Path(output_dir).absolute(),
        "omp_nthreads": omp_nthreads,
    }
    workflow = pe.Workflow(name=WORKFLOW, base_dir=str(Path(work_dir).absolute()))
    ordered = sorted(scans, key=lambda scan: (scan.subject, scan.relative))
    for subject, group in groupby(ordered, key=lambda scan: scan.subject):
        person = pe.Workflow(name=subject_workflow_name(subject))
        person.add_nodes([init_scan_wf(scan=scan, **shared) for scan in group])
        workflow.add_nodes([person])
    return workflow


def init_scan_wf(
    *,
    scan: Scan,
    settings: ProcessingSettings,
    weights: Sequence[Path],
    metadata: WeightsMetadata,
    provenance: dict[str, Any],
    output_dir: Path,
    omp_nthreads: int = 1,
) -> LiterateWorkflow:
    """Build the workflow of one scan; the arguments are those of :func:`init_msnmo_wf`.

    ``preprocessing_wf -> lesion_wf -> quality, figures -> write_derivatives``; the last one takes
    something of each. `metadata` is that of the first weights, `provenance` the record of the run
    (:func:`~msnmo_bids.workflows.provenance.run_record`).
    """
    workflow = LiterateWorkflow(name=f"scan_{scan.node_name}_wf")
    workflow.__desc__ = (
        f"Scans were processed by msnmo {get_version()}, a BIDS App [@bids], with Nipype [@nipype] "
        "and PyBIDS [@pybids]. "
    )
    workflow.__postdesc__ = _description_of_decision(settings, provenance)
    voxels = voxel_count(scan.path)
    shared: dict[str, Any] = {"voxels": voxels, "omp_nthreads": omp_nthreads}
    preprocessing_wf = init_preprocessing_wf(scan=scan, settings=settings, **shared)
    lesion_wf = init_lesion_wf(settings=settings, weights=weights, metadata=metadata, **shared)
    figures = pe.Node(Figures(), name="figures", mem_gb=memory_gb("figures", voxels))
    quality = pe.Node(Quality(), name="quality", mem_gb=memory_gb("quality", voxels))
    last = WriteDerivatives(
        scan=scan,
        raw_image=glance(scan),
        prefix=scan.prefix,
        native_file=str(scan.path),
        output_dir=str(output_dir),
    )
    write_derivatives = pe.Node(last, name=LAST_NODE, mem_gb=memory_gb("derivatives", voxels))
    images = ("raw_file", "mask_file", "preproc_file")
    workflow.connect([
        (preprocessing_wf, lesion_wf, [("outputnode.mask_file", "inputnode.mask_file"),
                                       ("outputnode.preproc_file", "inputnode.in_file")]),
        (preprocessing_wf, figures, same(*images, of="outputnode.")),
        (preprocessing_wf, quality, same(*images, of="outputnode.")),
        (preprocessing_wf, write_derivatives,
         same("info", "mask_file", "mask_flags", "skull_stripping", "preproc_file",
              "bias_correction", of="outputnode.")),
        (lesion_wf, figures, same("lesion_file", "label_file", "cam_files", of="outputnode.")),
        (lesion_wf, quality, same("mni_file", of="outputnode.")),
        (lesion_wf, write_derivatives,
         same("probability_file", "lesion_file", "label_file", "cam_files", "table_file",
              "class_probabilities", "class_votes", "distance", of="outputnode.")),
        (quality, write_derivatives, same("quality")),
        (figures, write_derivatives, same("figures")),
    ])  # fmt: skip
    write_derivatives.inputs.provenance = {**provenance, "Methods": methods_text(workflow)}
    return workflow


def _description_of_decision(settings: ProcessingSettings, record: Mapping[str, Any]) -> str:
    """Return what the methods text says of the scores and of when a class is named."""
    from msnmo_bids.model.calibration import DIRICHLET_CALIBRATION

    farthest = record["MaximumOutOfDistributionScore"]
    limits = record["NamingLimits"]
    needed = ["there was a lesion", "the image's quality was not red"]
    if limits:
        each = [
            f"{name} never" if least is None else f"{least:g} for {name}"
            for name, least in limits.items()
        ]
        needed.append(f"the score reached its limit ({', '.join(each)})")
    if record["Classifier"] == LESION_BRANCH and settings.ensemble:
        needed.append("all networks named it")
    elif settings.ensemble or settings.tta:
        needed.append("all networks and mirrored views named it")
    if farthest is not None:
        needed.append(
            f"the network's features of the scan lay no farther than {farthest:g} from those of "
            "its training scans (Mahalanobis distance over the square root of their number)"
        )
    calibrated = calibration(record["Calibration"]).replace(
        DIRICHLET_CALIBRATION, f"{DIRICHLET_CALIBRATION} [@dirichlet_calibration]"
    )
    return (
        f"{calibrated} The class with the highest score was named where "
        f"{', '.join(needed[:-1])} and {needed[-1]}. "
    )
