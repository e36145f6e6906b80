"""Write the joint network for the app: safetensors and their description.

``python -m dev.export_joint CHECKPOINT --version V --out FILE.safetensors``

``dev.export_lesions`` then puts the lesion network beside it, and ``dev.export_diagnosis`` the
branch that classifies into it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from dev.joint_recipe import RECIPE, read_recipe
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import WeightsMetadata, save_weights
from msnmo_bids.training.checkpoint import trained_weights

SIMULATED = (
    "T2-FLAIR simulated from 20 whole-head label maps of the SynthSeg project (Apache-2.0) and "
    "from lesion shapes of the Slicer LesionSimulator extension (Apache-2.0)"
)


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="checkpoint or state dict")
    parser.add_argument("--version", required=True, help="of the weights")
    parser.add_argument("--out", type=Path, required=True, help="NAME.safetensors")
    parser.add_argument("--side", type=int, default=128, help="of the input cube (default: 128)")
    parser.add_argument(
        "--max-distance", type=float, help="from the training scans, to name a diagnosis"
    )
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="default: %(default)s")
    options = parser.parse_args()
    tensors = trained_weights(options.checkpoint)
    density = any(name.startswith("density.") for name in tensors)
    network = JointNetwork(replace(read_recipe(options.recipe).network, density=density))
    network.load_state_dict(tensors)
    metadata = WeightsMetadata(
        name=options.out.stem,
        version=options.version,
        class_names=network.config.classes,
        cube_shape=(options.side,) * 3,
        max_distance=options.max_distance,
        trained_on=(f"{SIMULATED}; no real scan, of MS or of NMOSD, was used",),
    )
    save_weights(options.out, network, metadata, dtype="fp16")


if __name__ == "__main__":
    main()
