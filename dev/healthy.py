"""What is marked in heads without lesions: ``python -m dev.healthy OUT --runs RUN ...``.

Simulated heads of every protocol, not those of any training, on their cubes. A head is made once
and kept in ``OUT``; ``OUT/healthy.tsv`` has a row per training and head.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from dev.asset_options import add_asset_options, assets_of
from dev.leave_one_source_out import load_network, predict_cube
from dev.simulated_people import HEALTHY, protocol_of
from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.lesions.threshold import LesionCriteria, find_lesions
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.simulation.sample import prepared_scan, simulate_scan

SEED = 2700
#: More than this is a false finding (ml).
LITTLE = 0.2
_SIDE = 160
_THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)


def make_head(number: int, assets: SimulationAssets) -> tuple[np.ndarray, float]:
    """Simulate a head without lesions.

    Parameters
    ----------
    number : int
        Decides on everything; heads and protocols take turns.
    assets : SimulationAssets
        Heads.

    Returns
    -------
    image : ndarray of float16, (160, 160, 160)
        z-scores, background 0.
    voxel : float
        Volume of a voxel (mm³).
    """
    rng = np.random.default_rng((SEED, number))
    head = assets.heads[number % len(assets.heads)]
    protocol = protocol_of(number, rng)
    scan = simulate_scan(head, rng, diagnosis=HEALTHY, protocol=protocol, load=0.0)
    cube, brain, _ = prepared_scan(scan, rng, (_SIDE,) * 3)
    voxel = brain.sum() * scan.zooms.prod() / (cube != 0).sum()
    return cube.astype(np.float16), float(voxel)


def marked_volumes(
    probability: np.ndarray, voxel: float, thresholds: tuple[float, ...]
) -> dict[float, float]:
    """Return the volume of the lesions above each threshold (ml) for voxels of `voxel` mm³."""
    found = {t: find_lesions(probability, voxel, LesionCriteria(t)) for t in thresholds}
    return {t: float(np.count_nonzero(lesions.mask) * voxel / 1000) for t, lesions in found.items()}


def main() -> None:
    """Make the heads that are missing, look at all, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the heads and of the table")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of trainings")
    add_asset_options(parser)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    assets: SimulationAssets | None = None
    networks = {str(run): load_network(run) for run in options.runs}
    rows = []
    for number in range(options.count):
        file = options.out / f"{number:05d}.npz"
        if not file.exists():
            assets = assets or assets_of(options)
            made, size = make_head(number, assets)
            with atomic_path(file) as temporary:
                np.savez_compressed(temporary, image=made, voxel=size)
        with np.load(file) as head:
            image, voxel = head["image"], float(head["voxel"])
        for name, network in networks.items():
            marked = marked_volumes(predict_cube(network, image), voxel, _THRESHOLDS)
            rows.append({"run": name, "head": number} | {str(k): v for k, v in marked.items()})
    if rows:
        table = pd.DataFrame(rows)
        table.to_csv(options.out / "healthy.tsv", sep="\t", index=False, float_format="%.3f")
        volumes = table.drop(columns="head").groupby("run")
        little = table.set_index("run").drop(columns="head").lt(LITTLE).groupby("run").sum()
        print(f"heads of {options.count} with less than {LITTLE} ml:\n{little}")
        print(f"median, ml:\n{volumes.median().round(2)}\nmost, ml:\n{volumes.max().round(1)}")


if __name__ == "__main__":
    main()
