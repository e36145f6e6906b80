"""Time one simulated training sample, from a head to the cube, on one core.

``python -m benchmarks.simulated_sample --anatomy DIR --lesion-shapes FILE``
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from dev.asset_options import add_asset_options, assets_of
from msnmo_bids.training.samples import SimulatedSource


def main() -> None:
    """Print median and range of the CPU seconds of a sample, for each cube."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_asset_options(parser)
    parser.add_argument("--samples", type=int, default=20, help="of each cube (default: 20)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    assets = assets_of(options)
    for side in (96, 112, 160):
        pool = SimulatedSource(assets, (side,) * 3, size=1, classes=("MS", "NMOSD"))
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
