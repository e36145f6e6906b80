"""Write a trained segmentation path for the app: ``python -m dev.export_lesions RUN OUT``.

OUT, ``NAME.safetensors``, and its description segment only, with the density of their features:
from what distance on a scan is unlike those of training. ``dev.fit_diagnosis`` looks at people with
them, and ``dev.export_diagnosis`` adds what classifies.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dev.brains import read_brain
from dev.leave_one_source_out import CRITERIA, arithmetic, load_network
from dev.train_lesions import real_brains
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import WeightsMetadata, save_weights
from msnmo_bids.preprocessing.cube import CUBE_SHAPE, ROBUST

#: Share of the brains that lie within the limit, each by a density without its group.
WITHIN = 0.99
GROUPS = 5
TRAINED_ON = (
    "T2-FLAIR simulated from 20 whole-head label maps of the SynthSeg project (Apache-2.0) and "
    "from lesion shapes of the Slicer LesionSimulator extension (Apache-2.0); no real scan of "
    "NMOSD was used",
    "3 people with MS of the cross-sectional database of the Laboratory of Imaging Technologies, "
    "University of Ljubljana (CC-BY)",
    "9 people with MS (10 scans) of the MS3SEG cohort and 3 of another site (Copyright (c) 2026 "
    "Mahdi Bashiri; MIT License)",
    "1 person with MS of the MSLesSeg database (Guarnera et al., Scientific Data 12:920, 2025)",
)


def with_density(
    network: JointNetwork, store: Path, prepared: Path, count: int
) -> tuple[JointNetwork, float]:
    """Fit the density to simulated brains and to the real ones.

    Parameters
    ----------
    network : JointNetwork
        Segments; as trained on all sources.
    store, prepared : Path
        Simulated brains (``dev.simulated_store``), the first `count` of them, and prepared real
        scans.

    Returns
    -------
    network : JointNetwork
        The same with a density.
    limit : float
        Distance within which `WITHIN` of the brains lie.
    """
    files = sorted(store.glob("*.npz"))[:count]
    people, _ = real_brains(prepared, None)
    images = [read_brain(file).image for file in files]
    images += [scan.image for scans in people for scan in scans]
    groups = np.arange(len(images)) % GROUPS
    whole = JointNetwork(replace(network.config, density=True)).eval()
    whole.load_state_dict(whole.state_dict() | network.state_dict())
    statistics = torch.cat(list(_statistics(whole, images)))
    distances = np.zeros(len(images))
    for group in range(GROUPS):
        inside = groups == group
        whole.density.fit(statistics[~inside])
        distances[inside] = whole.density(statistics[inside]).numpy()
    whole.density.fit(statistics)
    return whole, float(np.quantile(distances, WITHIN))


def _statistics(network: JointNetwork, images: Iterable[np.ndarray]) -> Iterable[torch.Tensor]:
    for values in images:
        image = torch.from_numpy(np.asarray(values, np.float32))[None, None]
        image = image.contiguous(memory_format=torch.channels_last_3d)
        with torch.inference_mode(), arithmetic():
            yield network.forward_statistics(network.forward_features(image), image)


def main() -> None:
    """Write the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a training on all sources")
    parser.add_argument("out", type=Path, help="NAME.safetensors to write")
    parser.add_argument("--store", type=Path, required=True, help="simulated brains")
    parser.add_argument("--prepared", type=Path, required=True, help="prepared real scans")
    parser.add_argument("--brains", type=int, default=200, help="simulated, for the density")
    parser.add_argument("--version", required=True, help="of the weights")
    options = parser.parse_args()
    record = json.loads((options.run / "training.json").read_text(encoding="utf-8"))
    if record["without"] is not None or not record["real_people"]:
        raise SystemExit(f"{options.run}: these weights were not trained on all sources")
    network, limit = with_density(
        load_network(options.run), options.store, options.prepared, options.brains
    )
    metadata = WeightsMetadata(
        name=options.out.stem,
        version=options.version,
        cube_shape=CUBE_SHAPE,
        normalization=ROBUST,
        threshold=CRITERIA.threshold,
        min_lesion_volume=CRITERIA.min_volume,
        max_distance=round(limit, 2),
        trained_on=TRAINED_ON,
    )
    save_weights(options.out, network, metadata, dtype="fp16")


if __name__ == "__main__":
    main()
