"""The whole workflow of a run, and the work on one scan, from the raw FLAIR to derivatives."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from msnmo_bids.bids.names import CAM_PREFIX
from msnmo_bids.bids.resume import RAW_IMAGE, VOXELS, glance, identify
from msnmo_bids.bids.sink import ScanResults, write_scan_derivatives
from msnmo_bids.decision import decide
from msnmo_bids.quality import scan_quality
from msnmo_bids.reports.methods import calibration
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.version import get_version
from msnmo_bids.vocabulary import CONVOLUTIONS, LESION_BRANCH, LOOK_ALIKES, SIMULATED_ONLY
from msnmo_bids.workflows.lesions import init_lesion_wf
from msnmo_bids.workflows.nodes import methods_text, node, step
from msnmo_bids.workflows.preprocessing import init_preprocessing_wf
from msnmo_bids.workflows.resources import voxel_count
from msnmo_bids.workflows.step_names import (
    LAST_NODE,
    WORKFLOW,
    same,
    subject_workflow_name,
    workflow_name,
)

if TYPE_CHECKING:
    from msnmo_bids.bids.scans import Scan
    from msnmo_bids.model.weights import WeightsMetadata


def init_msnmo_wf(
    *,
    scans: Sequence[Scan],
    settings: ProcessingSettings,
    weights: Path,
    metadata: WeightsMetadata,
    output_dir: Path,
    work_dir: Path,
    omp_nthreads: int = 1,
) -> pe.Workflow:
    """Build the workflow of a run: one workflow per participant, in it one per scan.

    In the settings device, precision and tools are resolved (no ``auto``); `metadata`
    describes the `weights`, ``NAME.safetensors``.
    """
    shared: dict[str, Any] = {
        "settings": settings,
        "weights": weights.absolute(),
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
    weights: Path,
    metadata: WeightsMetadata,
    provenance: dict[str, Any],
    output_dir: Path,
    omp_nthreads: int = 1,
) -> LiterateWorkflow:
    """Build the workflow of one scan; the arguments are those of :func:`init_msnmo_wf`.

    ``preprocessing_wf -> lesion_wf -> quality, figures -> write_derivatives``; the last one takes
    something of each. `provenance` is the record of the run (:func:`run_record`).
    """
    workflow = LiterateWorkflow(name=workflow_name("scan", scan.prefix))
    workflow.__desc__ = (
        f"Scans were processed by msnmo {get_version()}, a BIDS App [@bids], with Nipype [@nipype] "
        "and PyBIDS [@pybids]. "
    )
    workflow.__postdesc__ = _description_of_decision(provenance, metadata.class_names)
    voxels = voxel_count(scan.path)
    shared: dict[str, Any] = {"voxels": voxels, "omp_nthreads": omp_nthreads}
    preprocessing_wf = init_preprocessing_wf(scan=scan, settings=settings, **shared)
    lesion_wf = init_lesion_wf(settings=settings, weights=weights, metadata=metadata, **shared)
    figures = node(figures_step(), "figures", "figures", voxels)
    quality = node(quality_step(), "quality", "quality", voxels)
    last = write_derivatives_step(
        scan=scan,
        raw_image=glance(scan),
        prefix=scan.prefix,
        native_file=str(scan.path),
        output_dir=str(output_dir),
    )
    write_derivatives = node(last, LAST_NODE, "derivatives", voxels)
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
              "class_probabilities", "distance", of="outputnode.")),
        (quality, write_derivatives, same("quality")),
        (figures, write_derivatives, same("figures")),
    ])  # fmt: skip
    write_derivatives.inputs.provenance = {**provenance, "Methods": methods_text(workflow)}
    return workflow


def _description_of_decision(record: Mapping[str, Any], classes: Sequence[str]) -> str:
    """Return what the methods text says of the scores and of when a class is named."""
    from msnmo_bids.model.calibration import DIRICHLET_CALIBRATION

    farthest = record["MaximumOutOfDistributionScore"]
    limits = record["NamingLimits"]
    needed = ["there was a lesion", "the image's quality was not red"]
    if limits:
        diseases = [name for name in classes if name not in LOOK_ALIKES]
        each = [
            f"{name} never" if (least := limits.get(name, 0.0)) is None else f"{least:g} for {name}"
            for name in diseases
        ]
        needed.append(
            f"its share of what {' and '.join(diseases)} score together reached its limit "
            f"({', '.join(each)})"
        )
    for name in LOOK_ALIKES:
        if name in classes:
            most = limits.get(name)
            needed.append(f"{name} scored no more than {'it' if most is None else f'{most:g}'}")
    if farthest is not None:
        needed.append(
            f"the network's features of the scan lay no farther than {farthest:g} from those of "
            "its training scans (Mahalanobis distance over the square root of their number)"
        )
    calibrated = calibration(record["Calibration"]).replace(
        DIRICHLET_CALIBRATION, f"{DIRICHLET_CALIBRATION} [@dirichlet_calibration]"
    )
    return (
        f"{calibrated} The disease with the highest score was named where "
        f"{', '.join(needed[:-1])} and {needed[-1]}. "
    )


def run_record(
    settings: ProcessingSettings, weights: WeightsMetadata, version: str
) -> dict[str, Any]:
    """Return the keys of the diagnosis file that are the same for all scans of a run, JSON-ready.

    There are no times, no run names and no absolute paths among them.
    """
    calibration, data = weights.calibration, weights.trained_on
    simulated_only = bool(data) and all("simulat" in name.lower() for name in data)
    return {
        "Calibration": {
            "Temperature": calibration.temperature,
            "Matrix": [list(row) for row in calibration.matrix],
            "Offset": list(calibration.offset),
            "Method": calibration.method,
            "Data": calibration.data,
        },
        "NamingLimits": dict(weights.naming_limits),
        "MaximumOutOfDistributionScore": weights.max_distance,
        "Classifier": LESION_BRANCH if weights.classifies_lesions else CONVOLUTIONS,
        "Threshold": settings.threshold,
        "MinimumLesionVolume": settings.min_lesion_volume,
        "Model": {
            "Name": weights.name,
            "Version": weights.version,
            "SHA256": weights.sha256,
            "Fingerprint": weights.fingerprint,
            "TrainedOn": list(weights.trained_on),
        },
        "Device": settings.device,
        "Precision": settings.precision,
        "RandomSeed": settings.random_seed,
        "Settings": asdict(settings),
        "Fingerprint": settings.fingerprint(version, weights.fingerprint),
        "GeneratedBy": {"Name": "msnmo", "Version": version},
        "Flags": [SIMULATED_ONLY] if simulated_only else [],
    }


@step("quality")
def quality_step(
    folder: Path, raw_file: Path, preproc_file: Path, mask_file: Path, mni_file: Path
) -> dict[str, Any]:
    """Measure and judge the quality of a scan: level, reasons, contrast and figures."""
    return scan_quality(raw_file, preproc_file, mask_file, np.load(mni_file))


@step("figures")
def figures_step(
    folder: Path,
    raw_file: Path,
    preproc_file: Path,
    mask_file: Path,
    lesion_file: Path,
    label_file: Path,
    cam_files: Mapping[str, str],
) -> dict[str, Path]:
    """Draw brain mask, bias correction, lesions and class activation maps: SVG files by kind."""
    from msnmo_bids.reports import figures

    cams = {name: Path(path) for name, path in cam_files.items()}
    out = {kind: folder / f"{kind}.svg" for kind in ("brainmask", "bias", "lesions", "cam")}
    figures.brain_mask_figure(raw_file, mask_file, out["brainmask"])
    figures.bias_figure(raw_file, preproc_file, out["bias"])
    figures.lesions_figure(preproc_file, lesion_file, label_file, out["lesions"])
    figures.cam_figure(preproc_file, lesion_file, cams, out["cam"])
    return out


@step("out_files", again=True)
def write_derivatives_step(
    folder: Path,
    scan: Scan,
    raw_image: Mapping[str, Any] | None,
    output_dir: Path,
    provenance: Mapping[str, Any],
    info: Mapping[str, Any],
    mask_file: Path,
    skull_stripping: Mapping[str, Any],
    bias_correction: Mapping[str, Any],
    preproc_file: Path,
    lesion_file: Path,
    probability_file: Path,
    label_file: Path,
    cam_files: Mapping[str, str],
    table_file: Path,
    class_probabilities: Mapping[str, float],
    quality: Mapping[str, Any],
    mask_flags: Sequence[str] = (),
    distance: float | None = None,
    figures: Mapping[str, str] | None = None,
) -> list[str]:
    """Decide on a diagnosis and write all derivatives of a scan, the diagnosis last.

    Images are in RAS order; `raw_image` is what was seen of the raw one before it was read.
    """
    measures = json.loads(table_file.read_text(encoding="utf-8"))
    kinds = ("preproc", "brain_mask", "lesion_mask", "lesion_probability", "lesion_labels")
    files = (preproc_file, mask_file, lesion_file, probability_file, label_file)
    images = dict(zip(kinds, files, strict=True))
    images |= {f"{CAM_PREFIX}{name}": Path(path) for name, path in cam_files.items()}
    results = ScanResults(
        images,
        measures["Table"],
        measures["Summary"],
        decide(
            class_probabilities,
            lesions=len(measures["Table"]),
            quality=quality,
            limits=provenance["NamingLimits"],
            distance=distance,
            farthest=provenance["MaximumOutOfDistributionScore"],
        ),
        quality,
        distance=distance,
        figures={kind: Path(path) for kind, path in (figures or {}).items()},
        orientation=info.get("axcodes"),
        flags=(*info.get("flags", ()), *mask_flags),
    )
    provenance = {
        **provenance,
        RAW_IMAGE: identify(scan, raw_image) | {VOXELS: info.get("voxels")},
        "Intensities": info.get("intensities"),
        "SkullStripping": skull_stripping,
        "BiasCorrection": bias_correction,
    }
    return write_scan_derivatives(scan, results, output_dir=output_dir, provenance=provenance)
