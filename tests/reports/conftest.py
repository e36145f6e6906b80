"""Hand-made results of a scan: the small files that reports read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from heads import CLASSES, diagnosis, entry

from msnmo_bids.bids.dataset import write_json, write_tsv
from msnmo_bids.bids.names import derivative_paths, figure_path
from msnmo_bids.bids.sidecars import MORPHOMETRY_COLUMNS


@pytest.fixture
def add_results(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Write the small files of a processed scan; return its entry."""

    def add(relative: str, **changes: Any) -> dict[str, Any]:
        scan = entry(relative)
        paths = derivative_paths(scan["Folder"], scan["Prefix"], CLASSES)
        output_dir = tmp_path / "out"
        write_json(output_dir / paths["diagnosis"], diagnosis(relative, **changes))
        row = {"index": 1, "volume_mm3": "1234.5678", "x_mm": -20.04, "region": "periventricular",
               "diameter_mm": 13.3, "mean_probability": 0.9, "small": 0}  # fmt: skip
        write_tsv(output_dir / paths["morphometry"], list(MORPHOMETRY_COLUMNS), [row])
        for kind in ("brainmask", "bias", "lesions", "cam"):
            figure = output_dir / figure_path(scan["Subject"], scan["Prefix"], kind)
            figure.parent.mkdir(parents=True, exist_ok=True)
            figure.write_text(
                f"<?xml version='1.0'?>\n<svg xmlns='a'><text>{kind} 5% #1</text></svg>"
            )
        return scan

    return add


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    return tmp_path / "out"
