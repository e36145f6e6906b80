"""Make the store of simulated brains: ``python -m dev.simulated_store STORE --count 1000 ...``.

A brain depends on its number alone, so that the program goes on where it was stopped and several
can run side by side (``--first``, ``--step``). Nothing of the four sources of real scans goes into
it: heads are label maps, lesion shapes come from a library of other people.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from dev.asset_options import add_asset_options, assets_of
from dev.brains import Brain, make_brain, write_brain
from msnmo_bids.preprocessing.cube import ROBUST, labels_to_cube, normalize, resize_brain
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.simulation.lesion_placement import draw_load
from msnmo_bids.simulation.sample import imperfect_brain_mask, simulate_scan

SEED = 24
_NMOSD_SHARE = 0.6  # the sites of NMOSD are those at which lesions are missed
_OWN_LOAD_SHARE = 0.5  # of NMOSD; the others have the loads of MS
_WITHOUT_LESIONS = 0.1
_BIAS_CORRECTED = (0.3, 1.0)


def simulate_brain(number: int, assets: SimulationAssets, side: int) -> Brain:
    """Simulate a brain on a cube of a side (voxels); the same number gives the same brain."""
    rng = np.random.default_rng((SEED, number))
    diagnosis = "NMOSD" if rng.random() < _NMOSD_SHARE else "MS"
    of = diagnosis if rng.random() < _OWN_LOAD_SHARE else "MS"
    load = draw_load(rng, of, without=_WITHOUT_LESIONS)
    head = assets.heads[rng.integers(len(assets.heads))]
    scan = simulate_scan(head, rng, diagnosis=diagnosis, load=load, shapes=assets.shapes)
    mask = imperfect_brain_mask(scan, rng)
    left = scan.bias ** np.float32(rng.uniform(*_BIAS_CORRECTED))
    margin = float(rng.uniform(3.0, 8.0))
    box = (mask, tuple(scan.zooms), (side,) * 3, margin)
    image, is_brain, transform = resize_brain(scan.image / left, *box)
    contrast, _, _ = resize_brain(scan.contrast / left, *box)
    values = image[is_brain]
    scale = np.ptp(normalize(values, ROBUST)) / np.ptp(values)
    image[is_brain] = normalize(values, ROBUST)
    return make_brain(image, labels_to_cube(scan.lesion_mask * mask, transform), contrast * scale)


def main() -> None:
    """Simulate what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="folder of the brains")
    add_asset_options(parser, needs_shapes=True)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--side", type=int, default=160)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.store.mkdir(parents=True, exist_ok=True)
    assets = assets_of(options)
    began, made = time.monotonic(), 0
    for number in range(options.first, options.count, options.step):
        target = options.store / f"{number:05d}.npz"
        if not target.exists():
            write_brain(target, simulate_brain(number, assets, options.side))
            made += 1
            if made % 20 == 0:
                print(f"{made} brains, {(time.monotonic() - began) / made:.1f} s each", flush=True)


if __name__ == "__main__":
    main()
