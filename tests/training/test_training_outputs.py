"""The table and the figure of a training."""

from __future__ import annotations

import csv

import pytest

from msnmo_bids.evaluation.crossval_results import read_curves
from msnmo_bids.training.outputs import COLUMNS, Curves


def row(step: int, **more: float) -> dict[str, float]:
    return {
        "step": step,
        "rate": 1e-4,
        "seconds": 2.0,
        "data_seconds": 0.5,
        "total": 1 / step,
        **more,
    }


def test_rows_after_the_checkpoint_and_a_cut_row_are_dropped(tmp_path):
    curves = Curves(tmp_path)
    curves.resume(0)
    for step in range(1, 6):
        curves.append(row(step, **({"validation_dsc": 0.5} if step == 2 else {})))
    with curves.table.open("a") as stream:
        stream.write("6,0.0001,2,0.")
    curves.resume(3)
    curves.append(row(4, total=7.0))
    with curves.table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert [r["step"] for r in rows] == ["1", "2", "3", "4"]
    assert [r["validation_dsc"] for r in rows] == ["", "0.5", "", ""]
    assert rows[3]["total"] == "7"


def test_a_new_training_starts_a_new_table(tmp_path):
    curves = Curves(tmp_path)
    curves.resume(0)
    curves.append(row(123456))
    assert read_curves(curves.table)[0]["step"] == 123456
    curves.resume(0)
    assert read_curves(curves.table) == []
    assert read_curves(tmp_path / "missing.csv") == []


@pytest.mark.parametrize("rows", [0, 1, 120])
def test_the_figure_is_drawn(tmp_path, rows):
    from matplotlib.image import imread

    curves = Curves(tmp_path)
    curves.resume(0)
    for step in range(1, rows + 1):
        curves.append(row(step, segmentation=0.5, validation_dsc=0.3, validation_total=1.0))
    curves.draw()
    image = imread(curves.figure)
    assert image.shape[0] > image.shape[1] > 500
    red = (image[..., 0] > 0.8) & (image[..., 1] < 0.3) & (image[..., 2] < 0.3)
    assert red.any() == (rows > 0)
    assert [path.name for path in tmp_path.glob(".*")] == []
