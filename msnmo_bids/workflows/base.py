"""The whole workflow: one workflow per subject, in it one per scan."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.pipeline.engine import Workflow

from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.version import get_version
from msnmo_bids.workflows.provenance import run_record
from msnmo_bids.workflows.scan import init_scan_wf
from msnmo_bids.workflows.steps import subject_workflow_name

if TYPE_CHECKING:
    from msnmo_bids.bids.scans import Scan


def init_msnmo_wf(
    *,
    scans: Sequence[Scan],
    settings: ProcessingSettings,
    weights: Sequence[Path],
    output_dir: Path,
    work_dir: Path,
    omp_nthreads: int = 1,
    name: str = "msnmo_wf",
) -> Workflow:
    """Build the workflow of a run.

    Parameters
    ----------
    scans : sequence of Scan
        What to process.
    settings : ProcessingSettings
        With device, precision and tools resolved (no ``auto``).
    weights : sequence of Path
        ``NAME.safetensors``, with ``NAME.json`` beside it; of several the mean is taken.
    output_dir : Path
        Root of the derivatives.
    work_dir : Path
        Folder for what is in between.
    omp_nthreads : int
        Threads of one node.
    name : str
        Name of the workflow.

    Returns
    -------
    Workflow
        For :func:`msnmo_bids.workflows.execution.run_workflow`.

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
    workflow = Workflow(name=name, base_dir=str(Path(work_dir).absolute()))
    ordered = sorted(scans, key=lambda scan: (scan.subject, scan.relative))
    for subject, group in groupby(ordered, key=lambda scan: scan.subject):
        person = Workflow(name=subject_workflow_name(subject))
        person.add_nodes([init_scan_wf(scan=scan, **shared) for scan in group])
        workflow.add_nodes([person])
    return workflow
