"""SAMSEG on the labelled scans, scored as our own masks are: ``python -m dev.samseg WORK ...``.

SAMSEG (Cerri et al., NeuroImage 2021; PyPI ``samseg``) adapts itself to any contrast and needs no
training of ours: it is what users would pick instead. It has an environment of its own::

    python -m venv ENV && ENV/bin/pip install samseg tensorflow-cpu

Twelve to 94 minutes per scan, by the machine; every scan is kept in ``docs/samseg.tsv`` when
it is done, and not run again. A scan on which it fails has a row that says so, and counts in no
mean.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.processing import resample_from_to

from dev.sources import labelled_data, source_of
from msnmo_bids.evaluation.metrics import compare_masks
from msnmo_bids.labelled.lesion_masks import read_lesion_mask
from msnmo_bids.labelled.scans import LabelledScan

TABLE = Path(__file__).resolve().parent.parent / "docs" / "samseg.tsv"
LESION = 99  # label of lesions in seg.mgz
OPTIONS = ("--lesion", "--lesion-mask-pattern", "1", "--pallidum-separate")
FIGURES = ("dsc", "ppv", "tpr", "lesion_f1", "true_volume_ml", "predicted_volume_ml")


def lesion_mask(segmentation: Path, grid: nib.Nifti1Image) -> np.ndarray:
    """Return SAMSEG's lesions (``seg.mgz``) on the grid of a manual mask: (X, Y, Z), uint8.

    Nearest neighbours.
    """
    labels = nib.MGHImage.from_filename(segmentation)
    mask = nib.Nifti1Image((np.asarray(labels.dataobj) == LESION).astype(np.uint8), labels.affine)
    return np.asarray(resample_from_to(mask, grid, order=0).dataobj)


def run_scan(one: LabelledScan, program: Path, out: Path, threads: int) -> dict[str, Any]:
    """Run SAMSEG on a scan and score it; return its row of the table."""
    assert one.mask is not None, "only labelled scans are asked for"
    row: dict[str, Any] = {"source": source_of(*one.person), "scan": one.name}
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [program, "-i", one.scan.path, "-o", out, "--threads", threads, *OPTIONS]
    began = time.monotonic()
    with (out.parent / f"{out.name}.log").open("w") as log:
        ended = subprocess.run([*map(str, command)], env=environment, stdout=log, stderr=log)
    row["minutes"] = round((time.monotonic() - began) / 60, 1)
    segmentation = out / "seg.mgz"
    if ended.returncode or not segmentation.exists():
        return {**row, "outcome": f"failed, exit code {ended.returncode}"}
    truth = read_lesion_mask(one.mask)
    zooms = tuple(float(size) for size in truth.header.get_zooms()[:3])
    figures = compare_masks(np.asarray(truth.dataobj), lesion_mask(segmentation, truth), zooms)
    return {**row, "outcome": "done", **{name: figures[name] for name in FIGURES}}


def main() -> None:
    """Run what is missing in the table; whole heads first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder of SAMSEG's own outputs")
    parser.add_argument("--data", type=Path, required=True, help="folder of the real data sets")
    parser.add_argument("--program", type=Path, required=True, help="ENV/bin/run_samseg")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    table = pd.read_csv(TABLE, sep="\t") if TABLE.exists() else pd.DataFrame({"scan": []})
    for one in labelled_data(options.data).scans:
        if one.name in set(table["scan"]):
            continue
        out = options.work / one.name.replace("/", "_")
        out.mkdir(parents=True, exist_ok=True)
        row = run_scan(one, options.program, out, options.threads)
        table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
        table.to_csv(TABLE, sep="\t", index=False, na_rep="n/a", float_format="%.3f")
        print(row, flush=True)


if __name__ == "__main__":
    main()
