"""A made-up cohort: tables of the raw data, and the small files of the participant level."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from heads import CLASSES, diagnosis, entry

from msnmo_bids.bids.names import derivative_paths
from msnmo_bids.bids.records import ScanRecord, read_scan

DIAGNOSES = ("MS", "NMOSD", "HC")
SITES = {"A": ("Siemens", "Skyra", 3), "B": ("Philips", "Achieva", 1.5), "C": ("GE", "Signa", 3)}
AFFINE = np.array([[8.0, 0, 0, -78], [0, 8, 0, -110], [0, 0, 8, -72], [0, 0, 0, 1]])
SHAPE = (20, 24, 20)


def make_cohort(
    folder: Path, people: int = 30, *, visits: int = 2, images: bool = True, seed: int = 0
) -> tuple[Path, Path, list[ScanRecord]]:
    """Write raw tables and derivatives; return raw, output and the scans' records.

    Diagnoses and sites take turns. The model is right for about four of five scans. One scan has
    failed, one is pending, one has a tiny brain. With ``images`` masks are there too, manual ones
    in ``derivatives/manual``.
    """
    raw, out = folder / "raw", folder / "out"
    rng = np.random.default_rng(seed)
    rows, entries = ["participant_id\tdiagnosis\tsite\tage"], []
    for number in range(people):
        label, name = f"{number + 1:03d}", DIAGNOSES[number % 3]
        site = list(SITES)[number // 3 % 3]
        rows.append(f"sub-{label}\t{name}\t{site}\t{rng.integers(20, 70)}")
        brain = 310.0 if number == 7 else round(rng.normal(1250, 90), 1)
        load = rng.lognormal({"MS": 1.8, "NMOSD": 0.3, "HC": -2.5}[name], 0.8)
        place = rng.integers(5, 12, 3)
        for visit in range(1, visits + 1):
            relative = f"sub-{label}/ses-{visit}/anat/sub-{label}_ses-{visit}_FLAIR.nii.gz"
            _sidecar(raw / relative, SITES[site])
            if (number, visit) in ((3, 1), (4, 1)):
                failed = {"step": "conform", "message": "truncated", "remedy": "Copy it again"}
                how = ("failed", failed) if number == 3 else ("pending", {})
                entries.append(read_scan(out, entry(relative, how[0], **how[1])))
                continue
            scan = entry(relative)
            _derivatives(out, scan, _decision(rng, name, load * visit**0.2, brain))
            if images:
                _images(raw, out, scan, place, rng)
            entries.append(read_scan(out, scan))
    raw.mkdir(parents=True, exist_ok=True)
    (raw / "participants.tsv").write_text("\n".join(rows) + "\n")
    return raw, out, entries


def _sidecar(image: Path, scanner: tuple[str, str, float]) -> None:
    image.parent.mkdir(parents=True, exist_ok=True)
    keys = ("Manufacturer", "ManufacturersModelName", "MagneticFieldStrength")
    text = json.dumps(dict(zip(keys, scanner, strict=True)))
    image.with_name(image.name.replace(".nii.gz", ".json")).write_text(text)


def _decision(rng: np.random.Generator, name: str, load: float, brain: float) -> dict[str, Any]:
    """Return what the model says of a scan: mostly the truth, sometimes nothing."""
    none = load < 0.05
    truth = name if name in CLASSES else "MS"
    score = float(np.clip(rng.normal(0.75, 0.2), 0.02, 0.98))
    scores = {other: score if other == truth else 1 - score for other in CLASSES}
    best = max(scores, key=scores.__getitem__)
    named = not none and scores[best] > 0.6
    return {
        "Diagnosis": best if named else "indeterminate",
        "Reason": None if named else "No class reaches 0.6",
        "Probabilities": scores,
        "LesionCount": 0 if none else int(1 + load * 3),
        "LesionVolume": 0.0 if none else round(load, 3),
        "BrainVolume": brain,
        "Flags": ["weights_simulated_only", *(["no_lesion_found"] if none else [])],
    }


def _derivatives(out: Path, scan: ScanRecord, decision: dict[str, Any]) -> None:
    paths = derivative_paths(scan.folder, scan.prefix, CLASSES)
    target = out / paths["diagnosis"]
    target.parent.mkdir(parents=True, exist_ok=True)
    registration = {"Space": "MNI152NLin2009aSym", "Matrix": np.eye(4).tolist()}
    content = diagnosis(scan.relative, **decision, AtlasRegistration=registration)
    target.write_text(json.dumps(content))


def _images(
    raw: Path, out: Path, scan: ScanRecord, place: np.ndarray, rng: np.random.Generator
) -> None:
    """Write FLAIR and mask, and a manual mask of another size."""
    paths = derivative_paths(scan.folder, scan.prefix, CLASSES)
    index = np.stack(np.indices(SHAPE), -1) - (np.array(SHAPE) - 1) / 2
    brain = np.linalg.norm(index / (np.array(SHAPE) / 2), axis=-1) < 0.9
    lesion = np.zeros(SHAPE, np.uint8)
    lesion[tuple(slice(p, p + 3) for p in place)] = 1
    flair = np.where(brain, 100 + 60 * lesion + rng.normal(0, 5, SHAPE), 0).astype(np.float32)
    for kind, data in (("preproc", flair), ("lesion_mask", lesion)):
        nib.save(nib.Nifti1Image(data, AFFINE), out / paths[kind])
    manual = raw / "derivatives" / "manual" / scan.folder
    manual.mkdir(parents=True, exist_ok=True)
    name = f"{scan.prefix}_space-orig_label-L_desc-manual_mask.nii.gz"
    other = np.zeros(SHAPE, np.uint8)
    size = rng.integers(2, 5, 3)
    other[tuple(slice(p, p + s) for p, s in zip(place, size, strict=True))] = 1
    nib.save(nib.Nifti1Image(other, AFFINE), manual / name)


def manual_masks(raw: Path, entries: list[ScanRecord]) -> dict[str, Path]:
    """Return the manual mask of each scan that has one."""
    found = {}
    for scan in entries:
        name = f"{scan.prefix}_space-orig_label-L_desc-manual_mask.nii.gz"
        path = raw / "derivatives" / "manual" / scan.folder / name
        if path.is_file():
            found[scan.relative] = path
    return found
