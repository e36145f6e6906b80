"""Ship a trained segmentation path: ``python -m dev.export_lesions RUN --criteria SUMMARY``.

Writes ``msnmo-lesions.safetensors`` with its description beside the joint network's weights, and
names it, with threshold and smallest lesion, in the description of those.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from dev.export_joint import SIMULATED
from dev.leave_one_source_out import load_network
from msnmo_bids.bids.dataset import write_json
from msnmo_bids.lesions.pipeline import LesionCriteria
from msnmo_bids.model.weights import (
    LesionNetwork,
    WeightsMetadata,
    default_weights_path,
    read_metadata,
    save_weights,
    weights_files,
)
from msnmo_bids.preprocessing.cube import CUBE_SHAPE, ROBUST

NAME = "msnmo-lesions"
REAL = (
    "3 people with MS of the cross-sectional database of the Laboratory of Imaging Technologies, "
    "University of Ljubljana (CC-BY)",
    "10 people with MS of the MS3SEG cohort and 3 of another site (Copyright (c) 2026 Mahdi "
    "Bashiri; MIT License)",
    "1 person with MS of the MSLesSeg database (Guarnera et al., Scientific Data 12:920, 2025)",
)


def main() -> None:
    """Write the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a training on all sources")
    parser.add_argument("--criteria", type=Path, required=True, help="summary.json, all folds")
    parser.add_argument("--version", required=True, help="of the weights")
    parser.add_argument(
        "--share", type=float, default=0.5, help="in the mean with the joint network's own path"
    )
    parser.add_argument("--joint", type=Path, default=default_weights_path())
    options = parser.parse_args()
    record = json.loads((options.run / "training.json").read_text(encoding="utf-8"))
    if record["without"] is not None or not record["real_people"]:
        raise SystemExit(f"{options.run}: these weights were not trained on all sources")
    chosen = LesionCriteria(**json.loads(options.criteria.read_text(encoding="utf-8"))["shipped"])
    joint = read_metadata(options.joint)
    lesions = WeightsMetadata(
        name=NAME,
        version=options.version,
        class_names=joint.class_names,
        cube_shape=CUBE_SHAPE,
        normalization=ROBUST,
        threshold=chosen.threshold,
        min_lesion_volume=chosen.min_volume,
        trained_on=(f"{SIMULATED}; no real scan of NMOSD was used", *REAL),
    )
    file = options.joint.with_name(f"{NAME}.safetensors")
    lesions = save_weights(file, load_network(options.run), lesions, dtype="fp16")
    own = [text for text in joint.trained_on if not text.startswith(f"{NAME}:")]
    joint = replace(
        joint,
        cube_shape=CUBE_SHAPE,
        input_shape=joint.input_shape or joint.cube_shape,
        version=options.version,
        threshold=chosen.threshold,
        min_lesion_volume=chosen.min_volume,
        lesion_network=LesionNetwork(file.name, lesions.sha256, options.share),
        trained_on=(*own, *(f"{NAME}: {text}" for text in lesions.trained_on)),
    )
    write_json(weights_files(options.joint)[1], joint.to_dict())


if __name__ == "__main__":
    main()
