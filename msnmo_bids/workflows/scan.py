"""The work on one scan, from the raw FLAIR to its derivatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from msnmo_bids.bids.raw_image import glance
from msnmo_bids.interfaces.derivatives import WriteDerivatives
from msnmo_bids.interfaces.quality import Quality
from msnmo_bids.interfaces.report_figures import Figures
from msnmo_bids.reports.methods import calibration
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.version import get_version
from msnmo_bids.vocabulary import LESION_BRANCH
from msnmo_bids.workflows.lesions import init_lesion_wf
from msnmo_bids.workflows.preprocessing import init_preprocessing_wf
from msnmo_bids.workflows.provenance import methods_text
from msnmo_bids.workflows.resources import memory_gb, voxel_count
from msnmo_bids.workflows.steps import LAST_NODE

if TYPE_CHECKING:
    from msnmo_bids.bids.scans import Scan
    from msnmo_bids.model.weights import WeightsMetadata


def init_scan_wf(
    *,
    scan: Scan,
    settings: ProcessingSettings,
    weights: Sequence[Path],
    metadata: WeightsMetadata,
    provenance: dict[str, Any],
    output_dir: Path,
    omp_nthreads: int = 1,
    name: str | None = None,
) -> LiterateWorkflow:
    """Build the workflow of one scan.

    ``preprocessing_wf -> lesion_wf -> quality, figures -> write_derivatives``; the last one takes
    something of each.

    Parameters
    ----------
    scan : Scan
        The raw FLAIR.
    settings : ProcessingSettings
        With device, precision and tools resolved (no ``auto``).
    weights : sequence of Path
        ``NAME.safetensors``; of several the mean is taken.
    metadata : WeightsMetadata
        What is known of the first.
    provenance : dict
        :func:`~msnmo_bids.workflows.provenance.run_record` of the run.
    output_dir : Path
        Root of the derivatives.
    omp_nthreads : int
        Threads of one node.
    name : str, optional
        Name of the workflow; made from the scan's name.

    Outputs
    -------
    out_files
        Paths of all derivatives, relative to ``output_dir``.
    """
    workflow = LiterateWorkflow(name=name or f"scan_{scan.node_name}_wf")
    workflow.__desc__ = (
        f"Scans were processed by msnmo {get_version()}, a BIDS App [@bids], with Nipype [@nipype] "
        "and PyBIDS [@pybids]. "
    )
    workflow.__postdesc__ = _description_of_decision(settings, provenance)
    shared: dict[str, Any] = {"voxels": voxel_count(scan.path), "omp_nthreads": omp_nthreads}
    outputnode = pe.Node(IdentityInterface(fields=["out_files"]), name="outputnode")
    preprocessing_wf = init_preprocessing_wf(scan=scan, settings=settings, **shared)
    lesion_wf = init_lesion_wf(settings=settings, weights=weights, metadata=metadata, **shared)
    figures = pe.Node(Figures(), name="figures", mem_gb=memory_gb("figures", shared["voxels"]))
    quality = pe.Node(Quality(), name="quality", mem_gb=memory_gb("quality", shared["voxels"]))
    write_derivatives = pe.Node(
        WriteDerivatives(
            scan=scan,
            raw_image=glance(scan),
            prefix=scan.prefix,
            native_file=str(scan.path),
            output_dir=str(output_dir),
        ),
        name=LAST_NODE,
        mem_gb=memory_gb("derivatives", shared["voxels"]),
    )
    images = ("raw_file", "mask_file", "preproc_file")
    workflow.connect([
        (preprocessing_wf, lesion_wf, [("outputnode.mask_file", "inputnode.mask_file"),
                                       ("outputnode.preproc_file", "inputnode.in_file")]),
        (preprocessing_wf, figures, _outputs(*images)),
        (preprocessing_wf, quality, _outputs(*images)),
        (preprocessing_wf, write_derivatives,
         _outputs("info", "mask_file", "mask_flags", "skull_stripping", "preproc_file",
                  "bias_correction")),
        (lesion_wf, figures, _outputs("lesion_file", "label_file", "cam_files")),
        (lesion_wf, quality, _outputs("mni_file")),
        (lesion_wf, write_derivatives,
         _outputs("probability_file", "lesion_file", "label_file", "cam_files", "table_file",
                  "class_probabilities", "class_votes", "distance")),
        (quality, write_derivatives, [("quality", "quality")]),
        (figures, write_derivatives, [("figures", "figures")]),
        (write_derivatives, outputnode, [("out_files", "out_files")]),
    ])  # fmt: skip
    write_derivatives.inputs.provenance = {**provenance, "Methods": methods_text(workflow)}
    return workflow


def _outputs(*names: str) -> list[tuple[str, str]]:
    """Connect outputs of a workflow with the inputs of the same names.

    Each connection needs a list of its own: Nipype empties it when it flattens the graph.
    """
    return [(f"outputnode.{name}", name) for name in names]


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
