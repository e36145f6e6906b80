"""How well change between visits is found, on simulated visits with known change.

``python -m dev.score_visits SIMULATED OUT [--participant-label LABEL …]``

SIMULATED is a data set of ``msnmo-simulate``, OUT what the app made of it.

Prints sensitivity and precision for new lesions of at least 30 mm³, what the lesions called new
truly are, the share of unchanged lesions that are called changed, and the error of their volume.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from msnmo_bids.bids.comparisons import comparisons
from msnmo_bids.bids.names import derivative_name, truth_name
from msnmo_bids.bids.scans import Scan, find_scans
from msnmo_bids.bids.text_files import read_tsv
from msnmo_bids.visits.compare import VisitFiles, compare, find_motion
from msnmo_bids.visits.halfway import resample

LEAST_VOLUME = 30.0
NEAREST_TO_NEW = ("new", "enlarging", "stable", "shrinking", "vanished")


@dataclass
class Example:
    """A scan as arrays: FLAIR, brain, true lesion labels, index to mm."""

    flair: np.ndarray
    brain: np.ndarray
    labels: np.ndarray
    affine: np.ndarray


def truth(scan: Scan) -> Example:
    """Read a simulated scan with its truth."""
    folder = scan.bids_dir / "derivatives" / "truth" / scan.folder
    flair = nib.Nifti1Image.from_filename(scan.path)
    names = [truth_name(scan.prefix, kind) for kind in ("brain_mask", "lesion_labels")]
    arrays = [np.asarray(nib.Nifti1Image.from_filename(folder / name).dataobj) for name in names]
    values = np.asarray(flair.dataobj, dtype=np.float32) * (arrays[0] > 0)
    return Example(values, arrays[0] > 0, arrays[1].astype(np.int32), flair.affine)


def true_changes(scan: Scan) -> dict[int, str]:
    """Return what became of each lesion since the visit before, by label."""
    folder = scan.bids_dir / "derivatives" / "truth" / scan.folder
    rows = read_tsv(folder / truth_name(scan.prefix, "lesion_table")).rows
    return {int(row["index"]): row["change"] for row in rows}


def of_app(scan: Scan, output: Path) -> VisitFiles:
    """Name the app's derivatives of a scan."""
    kinds = ("preproc", "brain_mask", "lesion_mask", "lesion_probability", "lesion_labels")
    names = {kind: derivative_name(scan.prefix, kind) for kind in (*kinds, "morphometry")}
    return {kind: str(output / scan.folder / name) for kind, name in names.items()}


class Score:
    """Counts over all comparisons."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.errors: list[float] = []
        self.confusion: dict[str, Counter[str]] = defaultdict(Counter)

    def add(
        self,
        files: tuple[VisitFiles, VisitFiles],
        examples: tuple[Example, Example],
        truly: Mapping[int, str],
    ) -> None:
        """Compare two visits and score the result against the truth: labels with their change."""
        new = {number for number, change in truly.items() if change == "new"}
        motion = find_motion(*files)
        changes = compare(*files, motion)
        ways = (changes.space.to_earlier, changes.space.to_later)
        before, after = (
            resample(e.labels, e.affine, changes.space, way, order=0).astype(int)
            for e, way in zip(examples, ways, strict=True)
        )
        volumes = [np.bincount(x.ravel(), minlength=70000) for x in (before, after)]
        same = {int(n) for n in np.unique(after) if n and volumes[0][n]}
        same = {n for n in same if 0.9 < volumes[1][n] / volumes[0][n] < 1.11}
        rows = {row["index"]: row for row in changes.table}
        called = {
            name: np.isin(changes.numbers, [i for i, row in rows.items() if row["change"] in names])
            for name, names in {"new": ("new",), "more": ("new", "enlarging")}.items()
        }
        for number in new:
            if volumes[1][number] >= LEAST_VOLUME:
                self.counts["new"] += 1
                there = after == number
                self.counts["found"] += bool((called["new"] & there).any())
                self.counts["found or enlarging"] += bool((called["more"] & there).any())
        for index, row in rows.items():
            own = changes.numbers == index
            inside = set(np.unique(np.concatenate([before[own], after[own]])).tolist()) - {0}
            if row["change"] == "new" and row["volume_later_mm3"] >= LEAST_VOLUME:
                self.counts["called new"] += 1
                changes_inside = {truly[number] for number in inside if number in truly}
                nearest = next((c for c in NEAREST_TO_NEW if c in changes_inside), "no lesion")
                self.confusion["called new"][nearest] += 1
            if inside and inside <= same:
                self.confusion["unchanged"][row["change"]] += 1
                pair = row["volume_earlier_mm3"], row["volume_later_mm3"]
                if min(pair) > 0 and max(pair) >= LEAST_VOLUME:
                    self.errors.append((pair[1] - pair[0]) / (sum(pair) / 2))
        print("…", dict(self.counts), flush=True)

    def report(self) -> None:
        """Print the results."""
        counts, errors = self.counts, np.array(self.errors or [np.nan])
        print(
            f"new lesions of at least {LEAST_VOLUME:g} mm³: {counts['new']}; found as new "
            f"{counts['found']}, as new or enlarging {counts['found or enlarging']}"
        )
        print(f"called new: {counts['called new']}; truly", dict(self.confusion["called new"]))
        print("unchanged lesions were called", dict(self.confusion["unchanged"]))
        print(
            f"volume error of unchanged lesions of at least {LEAST_VOLUME:g} mm³ at both visits "
            f"(n = {len(self.errors)}): median {np.median(errors):+.1%}, median absolute "
            f"{np.median(np.abs(errors)):.1%}, 95th percentile "
            f"{np.percentile(np.abs(errors), 95):.1%}"
        )


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("simulated", type=Path)
    parser.add_argument("output", type=Path, help="output folder of the app")
    parser.add_argument("--participant-label", nargs="+")
    options = parser.parse_args()
    score = Score()
    scans = find_scans(options.simulated, participants=options.participant_label).scans
    for one in comparisons(scans):
        files = of_app(one.earlier, options.output), of_app(one.later, options.output)
        score.add(files, (truth(one.earlier), truth(one.later)), true_changes(one.later))
    score.report()


if __name__ == "__main__":
    main()
