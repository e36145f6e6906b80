"""Write a trained segmentation path for the app: ``python -m dev.export_lesions RUN OUT``.

OUT, ``NAME.safetensors``, and its description segment only: ``dev.fit_diagnosis`` looks at people
with them, and ``dev.export_diagnosis`` adds what classifies.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dev.density import with_density
from dev.leave_one_source_out import load_network
from msnmo_bids.lesions.pipeline import LesionCriteria
from msnmo_bids.model.weights import WeightsMetadata, save_weights
from msnmo_bids.preprocessing.cube import CUBE_SHAPE, ROBUST

NAME = "msnmo-joint"
TRAINED_ON = (
    "T2-FLAIR simulated from 20 whole-head label maps of the SynthSeg project (Apache-2.0) and "
    "from lesion shapes of the Slicer LesionSimulator extension (Apache-2.0); no real scan of "
    "NMOSD was used",
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
    parser.add_argument("out", type=Path, help="NAME.safetensors to write")
    parser.add_argument("--criteria", type=Path, required=True, help="summary.json, all folds")
    parser.add_argument("--store", type=Path, required=True, help="simulated brains")
    parser.add_argument("--prepared", type=Path, required=True, help="prepared real scans")
    parser.add_argument("--brains", type=int, default=200, help="simulated, for the density")
    parser.add_argument("--version", required=True, help="of the weights")
    options = parser.parse_args()
    record = json.loads((options.run / "training.json").read_text(encoding="utf-8"))
    if record["without"] is not None or not record["real_people"]:
        raise SystemExit(f"{options.run}: these weights were not trained on all sources")
    chosen = LesionCriteria(**json.loads(options.criteria.read_text(encoding="utf-8"))["shipped"])
    network, limit = with_density(
        load_network(options.run), options.store, options.prepared, options.brains
    )
    metadata = WeightsMetadata(
        name=NAME,
        version=options.version,
        cube_shape=CUBE_SHAPE,
        normalization=ROBUST,
        threshold=chosen.threshold,
        min_lesion_volume=chosen.min_volume,
        max_distance=round(limit, 2),
        trained_on=TRAINED_ON,
    )
    save_weights(options.out, network, metadata, dtype="fp16")


if __name__ == "__main__":
    main()
