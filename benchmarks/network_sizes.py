"""Parameters and multiply-adds of the networks: ``python -m benchmarks.network_sizes [NAME ...]``.

Prints a Markdown table, by default of all networks of the paper's tables at a cube of 160.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from msnmo_bids.model import registry
from msnmo_bids.model.config import INPUT_CHANNELS


def network_size(network: nn.Module, side: int) -> tuple[int, int]:
    """Count a network's learnable numbers and its work on a cube, without doing the work.

    The work is that of one forward pass of one image, in multiplications with addition: half of the
    floating-point operations of convolutions, matrix products and attention. The network is moved
    to the meta device, which has shapes and no numbers.
    """
    network = network.to("meta").eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(1, INPUT_CHANNELS, side, side, side, device="meta"))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, counter.get_total_flops() // 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=registry.names(), help="default: all")
    parser.add_argument("--side", type=int, default=160, help="of the cube, voxels (default: 160)")
    parser.add_argument("--width", type=float, default=1.0, help="factor of the channels")
    asked = parser.parse_args(arguments)
    print(f"| network | row | parameters, millions | multiply-adds at {asked.side}³, 10⁹ |")
    print("|---|---|---|---|")
    for name in asked.names:
        try:
            entry = registry.entry(name)
            with torch.device("meta"):
                network = entry.build(width=asked.width)
            parameters, work = network_size(network, asked.side)
        except ValueError as error:
            parser.error(str(error))
        print(f"| {name} | {entry.label} | {parameters / 1e6:.2f} | {work / 1e9:.1f} |")


if __name__ == "__main__":
    main()
