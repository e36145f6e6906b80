"""How well change between visits is found, on simulated visits with known change.

``python -m dev.score_visits SIMULATED [--output OUT] [--inpainted] [--participant-label LABEL …]``

SIMULATED is a data set of ``msnmo-simulate``. Without ``--output`` the masks are the true ones with
errors of a segmentation added (outlines that wander, lesions missed and invented), on the true
brain; with it they are those of the app in OUT. ``--inpainted`` takes single scans and makes two
visits of each: some of its lesions are replaced by the tissue around them, the head is
moved, and contrast, shading and noise are drawn anew. Then many more lesions appear and vanish than
in the simulator's own follow-ups.

Prints sensitivity and precision for new lesions of at least 30 mm³, what the lesions called new
truly are, the share of unchanged lesions that are called changed, and the error of their volume.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from msnmo_bids.bids.comparisons import Comparison, comparisons
from msnmo_bids.bids.names import derivative_name, truth_name
from msnmo_bids.bids.scans import Scan, find_scans
from msnmo_bids.bids.text_files import read_tsv
from msnmo_bids.visits.compare import VisitFiles, compare, find_motion
from msnmo_bids.visits.halfway import resample

LEAST_VOLUME = 30.0
MISSED_SMALL, MISSED_LARGE, INVENTED = 0.15, 0.03, 2
WANDER = 0.25  # of the smoothed mask, s.d.
NEAREST_TO_NEW = ("new", "enlarging", "stable", "shrinking", "vanished")


@dataclass
class Example:
    """A scan as arrays: FLAIR, brain, true lesion labels, index to mm."""

    flair: np.ndarray
    brain: np.ndarray
    labels: np.ndarray
    affine: np.ndarray


#: Two visits: files, arrays, and what truly became of lesions of the later one, by label.
Pair = tuple[tuple[VisitFiles, VisitFiles], tuple[Example, Example], Mapping[int, str]]


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


def segmented(example: Example, rng: np.random.Generator) -> np.ndarray:
    """Return a lesion mask with the errors of a segmentation."""
    zooms = nib.affines.voxel_sizes(example.affine)
    volumes = np.bincount(example.labels.ravel()) * np.prod(zooms)
    share = np.where(volumes < LEAST_VOLUME, MISSED_SMALL, MISSED_LARGE)
    missed = np.flatnonzero(rng.random(len(volumes)) < share)
    mask = (example.labels > 0) & ~np.isin(example.labels, missed)
    noise = ndimage.gaussian_filter(rng.standard_normal(mask.shape), 2.0 / zooms)
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), 0.6 / zooms)
    found = smooth + WANDER * noise / noise.std() * (smooth > 0.02) > 0.5
    inside = np.argwhere(ndimage.binary_erosion(example.brain, iterations=4))
    for place in inside[rng.integers(len(inside), size=INVENTED)]:
        reach = np.ceil(3 / zooms).astype(int)
        box = tuple(slice(p - r, p + r + 1) for p, r in zip(place, reach, strict=True))
        steps = (np.indices(2 * reach + 1).T - reach) * zooms
        ball = rng.uniform(1.5, 2.6) > np.linalg.norm(steps, axis=-1).T
        if ball.shape == found[box].shape:
            found[box] |= ball & example.brain[box]
    return found


def inpainted(example: Example, gone: np.ndarray, rng: np.random.Generator) -> Example:
    """Replace some lesions by the tissue around them, and rescan the moved head."""
    zooms = nib.affines.voxel_sizes(example.affine)
    hole = ndimage.binary_dilation(np.isin(example.labels, gone), iterations=2)
    known = example.brain & (example.labels == 0) & ~hole
    known &= example.flair > 0.7 * np.median(example.flair[example.brain])
    weights = ndimage.gaussian_filter(known.astype(np.float32), 3 / zooms)
    around = ndimage.gaussian_filter(example.flair * known, 3 / zooms) / np.maximum(weights, 1e-3)
    flair = np.where(hole & (weights > 1e-3), around, example.flair)
    labels = np.where(np.isin(example.labels, gone), 0, example.labels)
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler("xyz", rng.normal(0, 4, 3), degrees=True).as_matrix()
    move[:3, 3] = rng.normal(0, 4, 3)
    matrix = np.linalg.inv(example.affine) @ move @ example.affine
    way = {"matrix": matrix[:3, :3], "offset": matrix[:3, 3]}
    brain = ndimage.affine_transform(example.brain.astype(np.uint8), order=0, **way) > 0
    moved = ndimage.affine_transform(flair, order=1, **way)
    shade = ndimage.gaussian_filter(rng.standard_normal(moved.shape), 25 / zooms)
    moved = moved * rng.uniform(0.8, 1.25) * (1 + 0.05 * shade / shade.std())
    moved += rng.normal(0, 0.03 * np.median(moved[brain]), moved.shape)
    return replace(
        example,
        flair=(np.maximum(moved, 1) * brain).astype(np.float32),
        brain=brain,
        labels=ndimage.affine_transform(labels, order=0, **way),
    )


def on_disk(example: Example, mask: np.ndarray, folder: Path) -> VisitFiles:
    """Write what the comparison reads."""
    folder.mkdir(parents=True)
    arrays = {
        "preproc": example.flair,
        "brain_mask": example.brain.astype(np.uint8),
        "lesion_mask": mask.astype(np.uint8),
        "lesion_probability": mask.astype(np.float32),
        "lesion_labels": ndimage.label(mask, np.ones((3, 3, 3)))[0].astype(np.int32),
    }
    for name, array in arrays.items():
        nib.save(nib.Nifti1Image(array, example.affine), folder / f"{name}.nii")
    paths = {name: str(folder / f"{name}.nii") for name in arrays}
    return {**paths, "morphometry": str(folder / "none.tsv")}


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


def repeated(scan: Scan, rng: np.random.Generator, places: Iterator[Path]) -> Pair | None:
    """Make two visits of one scan, in which some of its lesions are new; None if it has none."""
    example = truth(scan)
    if not example.labels.any():
        return None
    numbers = np.unique(example.labels[example.labels > 0])
    rng.shuffle(numbers)
    some = max(2, len(numbers) // 8)
    earlier = inpainted(example, numbers[:some], rng)
    later = inpainted(example, numbers[some : 2 * some], rng)
    before, after = segmented(earlier, rng), segmented(later, rng)
    files = on_disk(earlier, before, next(places)), on_disk(later, after, next(places))
    return files, (earlier, later), dict.fromkeys(numbers[:some].tolist(), "new")


def followed(
    one: Comparison, output: Path | None, rng: np.random.Generator, places: Iterator[Path]
) -> Pair:
    """Take two visits as they were simulated, with the app's masks or with made-up ones."""
    earlier, later = truth(one.earlier), truth(one.later)
    if output is None:
        files = (
            on_disk(earlier, segmented(earlier, rng), next(places)),
            on_disk(later, segmented(later, rng), next(places)),
        )
    else:
        files = of_app(one.earlier, output), of_app(one.later, output)
    return files, (earlier, later), true_changes(one.later)


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("simulated", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--inpainted", action="store_true")
    parser.add_argument("--participant-label", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, score = np.random.default_rng(options.seed), Score()
    scans = find_scans(options.simulated, participants=options.participant_label).scans
    with tempfile.TemporaryDirectory() as folder:
        places = (Path(folder) / str(k) for k in itertools.count())
        if options.inpainted:
            pairs = (repeated(scan, rng, places) for scan in scans)
        else:
            pairs = (followed(one, options.output, rng, places) for one in comparisons(scans))
        for pair in pairs:
            if pair is not None:
                score.add(*pair)
    score.report()


if __name__ == "__main__":
    main()
