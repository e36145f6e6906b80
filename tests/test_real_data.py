"""The app on real scans, where they are at hand (``MSNMO_REAL_DATA`` or ``../shared/data``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msnmo_bids.lesions.regions import locate_regions
from msnmo_bids.preprocessing.geometry import conform
from msnmo_bids.preprocessing.nifti_file import load_array
from msnmo_bids.preprocessing.skullstrip import foreground_mask
from msnmo_bids.quality import LIMITS, atlas_fit
from msnmo_bids.vocabulary import GREEN, RED

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("MSNMO_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
#: Data set, participant: skull-stripped scans with manual lesion masks (thick 2D; 1 mm).
LABELLED = (("ds-ms3seg-labelled", "04"), ("ds-ljubljana-labelled", "26"))

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no real scans in {DATA} (set MSNMO_REAL_DATA)"
)


def derivatives(dataset: str, participant: str, folder: Path, *options: str) -> Path:
    """Run the app on one participant and return the output folder."""
    result = subprocess.run(
        [
            sys.executable, str(REPOSITORY / "run.py"), str(DATA / dataset), str(folder / "out"),
            "participant", "--participant-label", participant, "--nprocs", "2", "--device", "cpu",
            "--skip-bids-validation", "--work-dir", str(folder / "work"), *options,
        ],
        capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "out"


@pytest.mark.parametrize(("dataset", "participant"), LABELLED)
def test_most_of_what_is_marked_is_lesion(dataset, participant, tmp_path):
    out = derivatives(dataset, participant, tmp_path)
    found = next(out.glob("sub-*/**/*_label-L_desc-msnmo_mask.nii.gz"))
    truth = next((DATA / dataset / "derivatives").glob(f"*/sub-{participant}/**/*_mask.nii.gz"))
    lesion = np.asarray(nib.load(found).dataobj) > 0
    manual = np.asarray(nib.load(truth).dataobj) > 0
    assert (lesion & manual).sum() / lesion.sum() > 0.5
    assert 2 * (lesion & manual).sum() / (lesion.sum() + manual.sum()) > 0.6


@pytest.mark.parametrize(("turn", "level"), [((1, 1, 1), GREEN), ((1, 1, -1), RED)])
def test_a_scan_that_is_upside_down_is_noticed(turn, level, tmp_path):
    (file,) = (DATA / "ds-ms3seg-labelled" / "sub-02").glob("**/*_FLAIR.nii.gz")
    scan = nib.load(file)
    image = nib.Nifti1Image(np.asanyarray(scan.dataobj), np.diag([*turn, 1]) @ scan.affine)
    raw, ras, mask = (tmp_path / name for name in ("raw.nii", "ras.nii", "mask.nii"))
    nib.save(image, raw)
    conform(raw, ras)
    foreground_mask(ras, mask)
    values, brain = load_array(ras), load_array(mask) > 0
    zooms = [float(size) for size in nib.load(ras).header.get_zooms()]
    to_mni = locate_regions(values, brain, zooms).to_mni
    limit = next(limit for limit in LIMITS if limit.name == "AtlasFit")
    assert limit.level(atlas_fit(values, brain, to_mni)) == level


def test_a_raw_clinical_scan_is_stripped(tmp_path):
    out = derivatives("ds-ljubljana", "20", tmp_path)
    record = json.loads(next(out.glob("sub-*/**/*_diagnosis.json")).read_text())
    assert record["SkullStripping"]["Tool"] in ("deepbet", "FSL BET")
    assert 1000 < record["BrainVolume"] < 1900
    assert record["LesionVolume"] < 0.1 * record["BrainVolume"]
    assert (out / "sub-20.html").stat().st_size > 100_000
