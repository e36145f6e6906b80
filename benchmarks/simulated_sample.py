"""Time one simulated training sample, from a head to the cube, on one core.

``PYTHONPATH=. python benchmarks/simulated_sample.py --anatomy DIR --lesion-shapes FILE``
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from msnmo_bids.simulation.anatomy import load_heads
from msnmo_bids.simulation.lesion_shapes import load_shapes
from msnmo_bids.training.pool import BrainPool


def main() -> None:
    """Print median and range of the CPU seconds of a sample, for each cube."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--anatomy", type=Path, required=True, help="folder of label maps")
    parser.add_argument("--lesion-shapes", type=Path, help="library of lesion shapes (.npz)")
    parser.add_argument("--cache", type=Path, help="folder for prepared heads")
    parser.add_argument("--samples", type=int, default=20, help="of each cube (default: 20)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    heads = load_heads(options.anatomy, options.cache)
    shapes = None if options.lesion_shapes is None else load_shapes(options.lesion_shapes)
    for side in (96, 112, 160):
        pool = BrainPool(
            heads, shapes, (side,) * 3, size=1, classes=("MS", "NMOSD"), nmosd_share=0.5
        )
        pool.refresh(np.random.default_rng(0))
        seconds = []
        for number in range(options.samples):
            started = time.process_time()
            pool.refresh(np.random.default_rng((1, number)))
            seconds.append(time.process_time() - started)
        low, middle, high = np.quantile(seconds, (0, 0.5, 1))
        print(f"{side}^3: median {middle:.2f} s ({low:.2f} to {high:.2f})", flush=True)


if __name__ == "__main__":
    main()
