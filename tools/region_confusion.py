"""Compare the regions of lesions, by the registered atlas, with the simulator's truth.

``PYTHONPATH=. python tools/region_confusion.py SIMULATED``

SIMULATED is a data set of ``msnmo-simulate``. The true lesions and the true brain mask are taken,
so that only the atlas, its registration and the ventricles found in the scan make a difference.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np

from msnmo_bids.bids.dataset import read_table
from msnmo_bids.bids.names import truth_name
from msnmo_bids.bids.scans import Scan, find_scans
from msnmo_bids.lesions.regions import REGIONS, assign_regions, locate_regions


def main() -> None:
    """Print a confusion table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("simulated", type=Path, help="data set of msnmo-simulate")
    parser.add_argument("--participant-label", nargs="+", help="default: all")
    options = parser.parse_args()
    counts: Counter[tuple[str, str]] = Counter()
    found = find_scans(options.simulated, participants=options.participant_label)
    for scan in found.scans:
        counts.update(compare(scan, options.simulated / "derivatives" / "truth"))
    print("truth \\ found", *REGIONS, sep="\t")
    for true in REGIONS:
        print(true, *(counts[true, region] for region in REGIONS), sep="\t")
    right = sum(counts[region, region] for region in REGIONS)
    print(f"{right} of {counts.total()} lesions of {len(found.scans)} scans agree")


def compare(scan: Scan, truth: Path) -> list[tuple[str, str]]:
    """Return the true and the found region of each lesion of a scan."""
    folder = truth / scan.folder

    def canonical(path: Path) -> nib.Nifti1Image:
        return nib.as_closest_canonical(nib.Nifti1Image.from_filename(path))

    flair = canonical(scan.path)
    brain = np.asarray(canonical(folder / truth_name(scan.prefix, "brain_mask")).dataobj) > 0
    lesions = canonical(folder / truth_name(scan.prefix, "lesion_labels"))
    labels = np.asarray(lesions.dataobj).astype(np.int32)
    with tempfile.TemporaryDirectory() as temporary:
        image, mask = Path(temporary) / "flair.nii", Path(temporary) / "mask.nii"
        nib.Nifti1Image(flair.get_fdata(dtype=np.float32) * brain, flair.affine).to_filename(image)
        nib.Nifti1Image(brain.astype(np.uint8), flair.affine).to_filename(mask)
        codes, _ = locate_regions(image, mask)
    regions = assign_regions(labels, codes, nib.affines.voxel_sizes(flair.affine))
    rows = read_table(folder / truth_name(scan.prefix, "lesion_table"))
    return [
        (row["region"], regions[int(row["index"])])
        for row in rows
        if int(row["index"]) in regions and row["region"] in REGIONS
    ]


if __name__ == "__main__":
    main()
