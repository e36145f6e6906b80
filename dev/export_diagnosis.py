"""Put a fitted lesion branch into weights: ``python -m dev.export_diagnosis FIT --weights OLD``.

``FIT`` is the folder of ``dev.fit_diagnosis``. What classified before, convolutions or an older
branch, is left out; the segmentation path and the density stay as they are, bit by bit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from msnmo_bids.model.calibration import Calibration
from msnmo_bids.model.config import SEGMENTATION
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import load_weights, save_weights


def with_branch(
    old: JointNetwork, branch: Mapping[str, Tensor], fit: Mapping[str, Any]
) -> JointNetwork:
    """Return a network that segments without what classified, and with a branch.

    `branch` and `fit` are what ``dev.fit_diagnosis`` wrote as ``lesion_branch.safetensors`` and
    ``diagnosis.json``.
    """
    config = replace(
        old.config,
        tasks=(SEGMENTATION,),
        classes=tuple(fit["classes"]),
        lesion_descriptors=len(fit["descriptors"]),
        lesion_fits=fit["fits"],
    )
    network = JointNetwork(config)
    tensors = old.state_dict() | {f"lesion_branch.{name}": value for name, value in branch.items()}
    network.load_state_dict({name: tensors[name] for name in network.state_dict()})
    return network.eval()


def main() -> None:
    """Export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fit", type=Path, help="folder of dev.fit_diagnosis")
    parser.add_argument("--weights", type=Path, required=True, help="NAME.safetensors to change")
    parser.add_argument("--version", required=True, help="of the new weights")
    parser.add_argument("--out", type=Path, required=True, help="NAME.safetensors to write")
    options = parser.parse_args()
    fit = json.loads((options.fit / "diagnosis.json").read_text("utf-8"))
    branch = load_file(options.fit / "lesion_branch.safetensors")
    old, metadata = load_weights(options.weights)
    metadata = replace(
        metadata,
        version=options.version,
        class_names=tuple(fit["classes"]),
        calibration=Calibration(**fit["calibration"]),
        naming_limits=fit["limits"],
        lesion_descriptors=tuple(fit["descriptors"]),
    )
    save_weights(options.out, with_branch(old, branch, fit), metadata, dtype="fp16")


if __name__ == "__main__":
    main()
