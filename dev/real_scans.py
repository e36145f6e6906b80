"""The app on all real scans, each with the weights that never saw its source.

``python -m dev.real_scans OUT --data DATA --runs RUNS --diagnosis FIT``

RUNS hold a training per source, FIT is the folder of ``dev.fit_diagnosis``, whose people are all
simulated. The raw scans of Ljubljana are read by that source's fold. ``OUT/scans.tsv`` says what is
named (all people have MS), ``OUT/changes.tsv`` how the changes between visits agree with those that
raters saw; the pages lie in ``OUT/SOURCE``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from safetensors.torch import load_file
from scipy import ndimage

from dev.export_diagnosis import with_branch
from dev.leave_one_source_out import CRITERIA, RUNS_HELP, load_network
from dev.sources import SOURCES, source_of
from msnmo_bids.lesions.threshold import CONNECTIVITY_26
from msnmo_bids.model.calibration import Calibration
from msnmo_bids.model.weights import WeightsMetadata, save_weights
from msnmo_bids.preprocessing.cube import CUBE_SHAPE, ROBUST
from msnmo_bids.vocabulary import CHANGES

RUN = Path(__file__).resolve().parent.parent / "run.py"
RAW = "ds-ljubljana"  # raw scans of a source, without lesion masks
_CHANGED = ("new", "enlarging", "shrinking", "vanished")


def fold_weights(run: Path, fit: Path, out: Path) -> Path:
    """Write the weights of a fold for the app, with a branch that classifies; return their file."""
    said = json.loads((fit / "diagnosis.json").read_text("utf-8"))
    network = with_branch(load_network(run), load_file(fit / "lesion_branch.safetensors"), said)
    metadata = replace(
        WeightsMetadata(f"without-{run.name}", "fold", cube_shape=CUBE_SHAPE, normalization=ROBUST),
        class_names=tuple(said["classes"]),
        threshold=CRITERIA.threshold,
        min_lesion_volume=CRITERIA.min_volume,
        calibration=Calibration(**said["calibration"]),
        naming_limits=said["limits"],
        lesion_descriptors=tuple(said["descriptors"]),
    )
    save_weights(out, network, metadata)
    return out


def people_of(source: str, data: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield the data sets of a source with the labels of its people in them."""
    raw = {RAW: ()} if source == source_of(f"{RAW}-labelled", "") else {}
    for name in {**SOURCES[source], **raw}:
        labels = sorted(folder.name.removeprefix("sub-") for folder in (data / name).glob("sub-*"))
        yield (
            data / name,
            [label for label in labels if name == RAW or source_of_or_none(name, label) == source],
        )


def source_of_or_none(dataset: str, subject: str) -> str | None:
    """Name the source of a person, None for one of no source."""
    try:
        return source_of(dataset, subject)
    except KeyError:
        return None


def read_diagnoses(out: Path, source: str, dataset: str) -> Iterator[dict[str, Any]]:
    """Yield a row per scan of the app's output."""
    for file in sorted(out.rglob("*_diagnosis.json")):
        content = json.loads(file.read_text("utf-8"))
        yield {
            "source": source,
            "scan": f"{dataset}/{file.name.split('_FLAIR')[0].removesuffix('_diagnosis.json')}",
            "lesions": content["LesionCount"],
            "volume_ml": content["LesionVolume"],
            **{f"score_{name}": value for name, value in content["Probabilities"].items()},
            "diagnosis": content["Diagnosis"],
            "reason": content["Reason"],
        }


def score_changes(out: Path, truth: Path) -> Iterator[dict[str, Any]]:
    """Compare the changes that the app tells with a mask of what raters saw change.

    Both are compared in the half-way space. ``inside_changed`` is the share of what changed that
    lies in lesions called new, enlarging, shrinking or vanished, ``inside_any`` in any lesion;
    ``false_alarms`` are lesions called changed that nothing touches which changed.
    """
    for classes_file in sorted(out.rglob("*_seg-changes_dseg.nii.gz")):
        later = classes_file.parent.parent
        masks = [*(truth / later.parent.name / later.name).rglob("*_desc-change_mask.nii.gz")]
        if not masks:  # raters have not looked at these two visits
            continue
        [mask_file] = masks
        [record_file] = classes_file.parent.glob("*_changes.json")
        record = json.loads(record_file.read_text("utf-8"))
        image, mask = (nib.Nifti1Image.from_filename(file) for file in (classes_file, mask_file))
        classes = np.asarray(image.dataobj)
        to_mask = np.linalg.inv(mask.affine) @ record["Registration"]["HalfwayToLater"]
        matrix = to_mask @ image.affine
        changed = ndimage.affine_transform(
            np.asarray(mask.dataobj, np.float32), matrix[:3, :3], matrix[:3, 3],
            output_shape=classes.shape, order=1,
        ) > 0.5  # fmt: skip
        values = [list(CHANGES).index(name) + 1 for name in _CHANGED]
        told = np.isin(classes, values)
        labels, count = ndimage.label(told, CONNECTIVITY_26)
        real = set(labels[changed & told].tolist())
        parts, number = ndimage.label(changed, CONNECTIVITY_26)
        voxel = float(abs(np.linalg.det(image.affine[:3, :3]))) / 1000
        yield {
            "visit": f"{later.parent.name}/{later.name}",
            "changed_ml": float(changed.sum() * voxel),
            "told_ml": float(told.sum() * voxel),
            "inside_changed": float(told[changed].mean()),
            "inside_any": float((classes[changed] > 0).mean()),
            "parts": number,
            "parts_told": len(set(parts[told & changed].tolist())),
            "told": count,
            "false_alarms": count - len(real),
        }


def main() -> None:
    """Run the app, source by source, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of weights, outputs and tables")
    parser.add_argument("--data", type=Path, required=True, help="folder of the real data sets")
    parser.add_argument("--runs", type=Path, required=True, help=RUNS_HELP)
    parser.add_argument("--diagnosis", type=Path, required=True, help="of fit_diagnosis")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []
    without = [name for name in SOURCES if not (options.runs / name / "training.json").exists()]
    if without:
        raise SystemExit(f"{options.runs}: no trainings without {', '.join(without)}")
    for source in SOURCES:
        file = options.out / "weights" / f"{source}.safetensors"
        weights = fold_weights(options.runs / source, options.diagnosis, file)
        for data, labels in people_of(source, options.data):
            out = options.out / source / data.name
            _run_app(data, out, labels, weights)
            rows += read_diagnoses(out, source, data.name)
            truth = data / "derivatives" / "change"
            if truth.is_dir():
                changes += score_changes(out, truth)
    for name, table in (("scans", rows), ("changes", changes)):
        frame = pd.DataFrame(table)
        frame.to_csv(options.out / f"{name}.tsv", sep="\t", index=False, float_format="%.4f")
        print(frame.round(3).to_string())


def _run_app(data: Path, out: Path, labels: Sequence[str], weights: Path) -> None:
    command = [
        sys.executable, str(RUN), str(data), str(out), "participant", "--weights", str(weights),
        "--skip-bids-validation", "--participant-label", *labels,
    ]  # fmt: skip
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
