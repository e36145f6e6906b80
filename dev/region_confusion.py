"""Compare regions and locations of lesions, by the registered atlas, with the simulator's truth.

``python -m dev.region_confusion SIMULATED``

SIMULATED is a data set of ``msnmo-simulate``. The true lesions and the true brain mask are taken,
so that only the atlas, its registration and the ventricles found in the scan make a difference.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from msnmo_bids.bids.names import truth_name
from msnmo_bids.bids.scans import Scan, find_scans
from msnmo_bids.bids.text_files import read_tsv
from msnmo_bids.lesions.regions import (
    LOCATIONS,
    REGIONS,
    assign_regions,
    lesion_locations,
    locate_regions,
)


def main() -> None:
    """Print the two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("simulated", type=Path, help="data set of msnmo-simulate")
    parser.add_argument("--participant-label", nargs="+", help="default: all")
    options = parser.parse_args()
    regions: Counter[tuple[str, str]] = Counter()
    locations: Counter[tuple[str, str]] = Counter()
    kinds: Counter[str] = Counter()
    found = find_scans(options.simulated, participants=options.participant_label)
    for scan in found.scans:
        for lesion in compare(scan, options.simulated / "derivatives" / "truth"):
            regions[lesion.true_region, lesion.region] += lesion.true_region in REGIONS
            kinds[lesion.kind] += 1
            locations.update((lesion.kind, location) for location in lesion.locations)
    print("truth \\ found", *REGIONS, sep="\t")
    for true in REGIONS:
        print(true, *(regions[true, region] for region in REGIONS), sep="\t")
    right = sum(regions[region, region] for region in REGIONS)
    print(f"{right} of {regions.total()} lesions of {len(found.scans)} scans agree\n")
    print("kind \\ location", "lesions", *LOCATIONS, sep="\t")
    for kind in sorted(kinds):
        print(kind, kinds[kind], *(locations[kind, location] for location in LOCATIONS), sep="\t")


@dataclass(frozen=True)
class Lesion:
    """Where a lesion lies, by the truth and by the atlas."""

    kind: str
    true_region: str
    region: str
    locations: tuple[str, ...]


def compare(scan: Scan, truth: Path) -> list[Lesion]:
    """Return the lesions of a scan."""
    folder = truth / scan.folder

    def canonical(path: Path) -> nib.Nifti1Image:
        return nib.as_closest_canonical(nib.Nifti1Image.from_filename(path))

    flair = canonical(scan.path)
    zooms = nib.affines.voxel_sizes(flair.affine)
    brain = np.asarray(canonical(folder / truth_name(scan.prefix, "brain_mask")).dataobj) > 0
    lesions = canonical(folder / truth_name(scan.prefix, "lesion_labels"))
    labels = np.asarray(lesions.dataobj).astype(np.int32)
    codes, to_mni = locate_regions(flair.get_fdata(dtype=np.float32), brain, zooms)
    regions = assign_regions(labels, codes, zooms)
    locations = lesion_locations(labels, to_mni, float(np.prod(zooms)))
    rows = read_tsv(folder / truth_name(scan.prefix, "lesion_table")).rows
    return [
        Lesion(row["kind"], row["region"], regions[index], tuple(locations[index]))
        for row, index in ((row, int(row["index"])) for row in rows)
        if index in regions
    ]


if __name__ == "__main__":
    main()
