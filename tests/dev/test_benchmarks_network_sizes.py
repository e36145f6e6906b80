"""The table of the networks' sizes."""

from __future__ import annotations

import pytest
import torch

from benchmarks.network_sizes import main, network_size
from msnmo_bids.model import registry


def test_multiply_adds_by_hand():
    """Two convolutions and a linear layer on a cube of 8."""
    network = torch.nn.Sequential(
        torch.nn.Conv3d(1, 4, 3, padding=1),
        torch.nn.Conv3d(4, 8, 3, stride=2, padding=1),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 4**3, 2),
    )
    parameters, work = network_size(network, 8)
    linear = 8 * 4**3 * 2
    assert work == 8**3 * 4 * 27 + 4**3 * 8 * 4 * 27 + linear
    assert parameters == (4 * 27 + 4) + (8 * 4 * 27 + 8) + linear + 2


def test_work_grows_with_the_volume():
    small, large = (
        network_size(registry.entry("vnet").build(width=0.25), side) for side in (32, 64)
    )
    assert large[1] == 8 * small[1]
    assert large[0] == small[0]


def test_size_command_prints_a_table(capsys):
    chosen = ["joint", "only_segmentation", "unet", "densenet121"]
    main([*chosen, "--side", "32", "--width", "0.25"])
    lines = capsys.readouterr().out.splitlines()
    assert "32³" in lines[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[:2] for row in rows] == [[name, registry.entry(name).label] for name in chosen]
    assert all(float(row[2]) > 0 and float(row[3]) > 0 for row in rows)
    assert float(rows[1][3]) < float(rows[0][3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["alexnet"], "unknown network 'alexnet'"), (["unet", "--side", "40"], "multiples of 16")],
)
def test_size_command_refuses_in_words(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main([*arguments, "--width", "0.25"])
    assert message in capsys.readouterr().err
