"""Real scans with manual masks, prepared for training (``MSNMO_REAL_DATA``)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from msnmo_bids.labelled.scans import Found, find_labelled_scans
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.training.prepared import prepare_scans

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("MSNMO_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
LABELLED = ("ds-ljubljana-labelled", "ds-ms3seg-labelled")

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no real scans in {DATA} (set MSNMO_REAL_DATA)"
)


@pytest.fixture(scope="module")
def found() -> Found:
    return find_labelled_scans([DATA / name for name in LABELLED], classes=("MS", "NMOSD"))


def test_every_scan_has_its_mask_and_its_site(found):
    assert found.left_out == ()
    assert len(found.scans) == 8
    assert {scan.diagnosis for scan in found.scans} == {"MS"}
    assert len({scan.site for scan in found.scans}) == 2
    for scan in found.scans:
        assert scan.mask is not None
        assert scan.mask.name.startswith(f"{scan.scan.prefix}_space-orig_label-L_desc-")


@pytest.mark.parametrize("index", [0, -1])  # 1 mm, left to right; thick slices
def test_lesions_lie_on_bright_voxels_and_come_back(found, tmp_path, index):
    settings = ProcessingSettings(skull_strip="deepbet", bias_correction="skip")
    [scan], rest = prepare_scans(
        Found((found.scans[index],)),
        cache_dir=tmp_path / "cache",
        work_dir=tmp_path / "work",
        settings=settings,
        plugin="Linear",
    )
    assert rest.left_out == ()
    sample = scan.load(("MS", "NMOSD"))
    lesion = sample.lesions > 0
    assert sample.image[lesion].mean(dtype=float) > 1
    mirrored = lesion[::-1]
    assert sample.image[lesion].mean(dtype=float) > sample.image[mirrored].mean(dtype=float) + 0.5
    mask, grid = scan.native_mask(), scan.grid()
    back = grid.to_native(sample.lesions.astype(np.float32)) > 0.5
    assert 2 * (back & (mask > 0)).sum() / (back.sum() + mask.sum()) > 0.9
    assert np.allclose(sorted(grid.zooms)[:2], 0.9, atol=0.11)
