"""What the diagnosis files and sidecars of one run have in common, and how it was made."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.vocabulary import CONVOLUTIONS, LESION_BRANCH, SIMULATED_ONLY

if TYPE_CHECKING:
    from niworkflows.engine.workflows import LiterateWorkflow

    from msnmo_bids.model.weights import WeightsMetadata


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


def methods_text(workflow: LiterateWorkflow) -> str:
    """Return what a workflow and those in it say of themselves, for the records.

    The methods of the reports and of ``logs/CITATION.md`` are this text and nothing else; papers
    stand in it as ``[@key]``, with the keys of ``CITATION.bib``. The parts must be connected.
    """
    return " ".join(workflow.visit_desc().split())
