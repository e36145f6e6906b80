"""Write trained weights for the app: safetensors and metadata.

``python -m msnmo_bids.training.export --checkpoint FILE --version V --out FILE.safetensors``
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from msnmo_bids.lesions.pipeline import LesionCriteria
from msnmo_bids.model.calibration import (
    ISOTONIC_CALIBRATION,
    TEMPERATURE_SCALING,
    Calibration,
)
from msnmo_bids.model.config import SEGMENTATION
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import (
    LesionNetwork,
    WeightsMetadata,
    lesion_weights,
    read_metadata,
    save_weights,
)
from msnmo_bids.preprocessing.cube import NORMALIZATIONS, Z_SCORE
from msnmo_bids.training.checkpoint import trained_weights
from msnmo_bids.training.recipe import RECIPE, read_recipe

SIMULATED = (
    "T2-FLAIR simulated from 20 whole-head label maps of the SynthSeg project (Apache-2.0) and "
    "from lesion shapes of the Slicer LesionSimulator extension (Apache-2.0)"
)


def trained_on(real: Sequence[str]) -> tuple[str, ...]:
    """Say what weights were trained on.

    Examples
    --------
    >>> trained_on(["five scans of MS"])[0].rpartition("; ")[2]
    'no real scan of NMOSD was used'
    >>> trained_on([])[0].rpartition("; ")[2]
    'no real scan, of MS or of NMOSD, was used'
    """
    if real:
        return (f"{SIMULATED}; no real scan of NMOSD was used", *real)
    return (f"{SIMULATED}; no real scan, of MS or of NMOSD, was used",)


def _with_lesion_network(metadata: WeightsMetadata, file: Path) -> WeightsMetadata:
    """Name the weights that give the lesion probability, and what they were trained on."""
    other = read_metadata(file)
    return replace(
        metadata,
        lesion_network=LesionNetwork(file.name, other.sha256),
        trained_on=(*metadata.trained_on, *(f"{other.name}: {data}" for data in other.trained_on)),
    )


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint or state dict")
    parser.add_argument("--version", required=True, help="version of the weights")
    parser.add_argument("--out", type=Path, required=True, help="NAME.safetensors")
    parser.add_argument(
        "--threshold", type=float, default=LesionCriteria.threshold, help="default: %(default)s"
    )
    parser.add_argument("--side", type=int, default=160, help="side of the input cube, voxels")
    parser.add_argument(
        "--min-lesion-volume", type=float, default=LesionCriteria.min_volume,
        help="mm³ (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--normalization", choices=NORMALIZATIONS, default=Z_SCORE,
        help="of the input that the network was trained on (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--temperature", type=float, default=1.0, help="default: 1")
    parser.add_argument(
        "--margins", type=float, nargs="*", default=[], help="of a calibration curve, in its place"
    )
    parser.add_argument(
        "--chances", type=float, nargs="*", default=[], help="of the second class, at the margins"
    )
    parser.add_argument(
        "--min-class-probability", type=float, default=0.0, help="to name a diagnosis, default: 0"
    )
    parser.add_argument(
        "--max-distance", type=float, help="from the training scans, to name a diagnosis"
    )
    parser.add_argument(
        "--calibrated-on", default="", help="data that the calibration was fitted on"
    )
    parser.add_argument(
        "--real-data", nargs="*", default=[], metavar="TEXT",
        help="real scans that were trained on, with number and licence",
    )  # fmt: skip
    parser.add_argument("--name", default="msnmo-joint", help="default: %(default)s")
    parser.add_argument(
        "--segmentation-only", action="store_true", help="leave the classifier out of the file"
    )
    parser.add_argument(
        "--lesion-network", type=Path, metavar="FILE",
        help="weights in the folder of --out that give the lesion probability "
        "(default: the network itself)",
    )  # fmt: skip
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="default: %(default)s")
    options = parser.parse_args()
    tensors = trained_weights(options.checkpoint)
    density = any(name.startswith("density.") for name in tensors)
    configuration = replace(read_recipe(options.recipe).network, density=density)
    if options.segmentation_only:
        configuration = replace(configuration, tasks=(SEGMENTATION,), density=False)
        kept = JointNetwork(configuration).state_dict()
        tensors = {name: tensor for name, tensor in tensors.items() if name in kept}
    network = JointNetwork(configuration)
    network.load_state_dict(tensors)
    calibration = Calibration()
    if options.calibrated_on:
        calibration = Calibration(
            options.temperature,
            ISOTONIC_CALIBRATION if options.margins else TEMPERATURE_SCALING,
            options.calibrated_on,
            tuple(options.margins),
            tuple(options.chances),
        )
    metadata = WeightsMetadata(
        name=options.name,
        version=options.version,
        class_names=configuration.classes,
        cube_shape=(options.side,) * 3,
        threshold=options.threshold,
        min_lesion_volume=options.min_lesion_volume,
        normalization=options.normalization,
        calibration=calibration,
        min_class_probability=options.min_class_probability,
        max_distance=options.max_distance,
        trained_on=trained_on(options.real_data),
    )
    if options.lesion_network is not None:
        metadata = _with_lesion_network(metadata, options.lesion_network)
        lesion_weights(options.out, metadata)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(options.out, network, metadata, dtype="fp16")


if __name__ == "__main__":
    main()
