"""Compare simulated scans with published cohorts, and look for leaks of the class.

``python -m dev.survey_simulation --anatomy DIR --lesion-shapes FILE --out DIR``

Writes ``survey.tsv``, one row per scan: lesion count and volume, which regions have a lesion, and
intensity ratios, beside everything of the image that is not lesion (histogram, low-order bias,
voxel sizes, shape of the head). Prints a table of the first, and how well a cross-validated
classifier tells MS from NMOSD by the second: an area under the ROC curve of about .5, or the
simulator gives the class away.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from dev.asset_options import add_asset_options, assets_of
from msnmo_bids.lesions.regions import REGIONS
from msnmo_bids.lesions.threshold import LesionCriteria
from msnmo_bids.simulation.anatomy import BRAIN, Tissue
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.simulation.dataset import Cohort, simulate_person
from msnmo_bids.simulation.imaging import PRESETS
from msnmo_bids.simulation.sample import SimulatedScan
from msnmo_bids.simulation.truth import lesion_table

HALO = 4.0  # mm around a lesion that is inpainted with it
SMALLEST = LesionCriteria.min_volume  # mm³; smaller lesions are not counted
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def survey(scan: SimulatedScan, healthy: SimulatedScan) -> dict[str, float | str]:
    """Measure a scan, whose lesions are inpainted by the same one without any.

    Names that begin with ``leak_`` know nothing of the lesions.
    """
    lesion, tissue = scan.lesion_mask > 0, scan.tissue
    clear = (tissue == Tissue.WHITE_MATTER) & ~lesion
    white = float(np.median(scan.image[clear]))
    rows = [row for row in lesion_table(scan) if row["volume_mm3"] >= SMALLEST]
    measured: dict[str, float | str] = {
        "diagnosis": scan.diagnosis,
        "count": len(rows),
        "volume_ml": lesion.sum() * float(scan.zooms.prod()) / 1000,
        "lesion_to_white": np.mean(scan.image[lesion]) / white if lesion.any() else np.nan,
        "grey_to_white": np.median(scan.image[(tissue == Tissue.CORTEX) & ~lesion]) / white,
        "csf_to_white": np.median(scan.image[tissue == Tissue.LATERAL_VENTRICLE]) / white,
    }
    for region in REGIONS:
        measured[f"has_{region}"] = any(row["region"] == region for row in rows)
    for kind in ("u_fibre", "ependymal", "third_ventricle", "fourth_ventricle", "midbrain", "pons",
                 "medulla", "area_postrema", "cerebellar", "vascular"):  # fmt: skip
        measured[f"has_{kind}"] = any(row["kind"] == kind for row in rows)
    return measured | _leaks(scan, _inpainted(scan, healthy))


def _inpainted(scan: SimulatedScan, healthy: SimulatedScan) -> np.ndarray:
    """Replace the lesions and their halo by what the same person has there without lesions."""
    reach = np.maximum(np.round(HALO / scan.zooms), 1).astype(int)
    box = np.ones(2 * reach + 1, bool)
    near = ndimage.binary_dilation(scan.lesion_mask > 0, box)
    return np.where(near, healthy.image, scan.image)


def _leaks(scan: SimulatedScan, image: np.ndarray) -> dict[str, float]:
    brain, clear = np.isin(scan.tissue, BRAIN), scan.tissue == Tissue.WHITE_MATTER
    white = float(np.median(image[clear]))
    values = np.quantile(image[brain], QUANTILES) / white
    found = {f"leak_quantile_{q}": v for q, v in zip(QUANTILES, values, strict=True)}
    place = np.argwhere(clear)
    place = (place - place.mean(axis=0)) * scan.zooms / 50
    linear = np.column_stack([np.ones(len(place)), place, place**2])
    slopes, *_ = np.linalg.lstsq(linear, image[clear] / white, rcond=None)
    found |= {f"leak_bias_{k}": value for k, value in enumerate(slopes)}
    found |= {f"leak_voxel_{k}": value for k, value in enumerate(scan.zooms)}
    extent = np.ptp(np.argwhere(brain), axis=0) * scan.zooms
    found |= {f"leak_extent_{k}": value for k, value in enumerate(extent)}
    voxel = float(scan.zooms.prod()) / 1000
    found["leak_brain_ml"] = brain.sum() * voxel
    found["leak_ventricle_ml"] = (scan.tissue == Tissue.LATERAL_VENTRICLE).sum() * voxel
    found["leak_noise"] = float(image[scan.tissue == Tissue.AIR].std()) / white
    return {name: float(value) for name, value in found.items()}


def _one(number: int, cohort: Cohort, assets: SimulationAssets) -> dict[str, float | str]:
    rng = np.random.default_rng((cohort.seed, number, 9))
    head = assets.heads[rng.integers(len(assets.heads))]
    healthy = replace(cohort, diagnoses=("HC",) * len(cohort.diagnoses))
    scans = (
        next(simulate_person(who, number, head, assets.shapes)).scan for who in (cohort, healthy)
    )
    return survey(*scans)


def leak(table: pd.DataFrame) -> tuple[float, float, float]:
    """Return the cross-validated area under the ROC curve of MS against NMOSD, with its interval.

    By the ``leak_`` columns of `survey`; the interval is a 95 % bootstrap interval over the scans.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    label = (table.diagnosis == "NMOSD").to_numpy()
    features = table.filter(like="leak_").to_numpy()
    folds = StratifiedKFold(10, shuffle=True, random_state=0)
    forest = RandomForestClassifier(300, min_samples_leaf=3, random_state=0)
    score = cross_val_predict(forest, features, label, cv=folds, method="predict_proba")[:, 1]
    rng = np.random.default_rng(0)
    again = [rng.integers(len(label), size=len(label)) for _ in range(1000)]
    areas = [roc_auc_score(label[k], score[k]) for k in again]
    low, high = np.quantile(areas, (0.025, 0.975))
    return float(roc_auc_score(label, score)), float(low), float(high)


def summary(table: pd.DataFrame) -> str:
    """Return the table of both classes as Markdown."""
    lines = ["| | MS | NMOSD |", "|---|---|---|"]
    groups = [table[table.diagnosis == name] for name in ("MS", "NMOSD")]
    for name in ("count", "volume_ml", "lesion_to_white", "grey_to_white", "csf_to_white"):
        cells = []
        for group in groups:
            low, middle, high = group[name].quantile([0.25, 0.5, 0.75])
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
        lines.append(f"| {name}, median (quartiles) | {' | '.join(cells)} |")
    for name in table.filter(like="has_").columns:
        cells = [f"{100 * group[name].mean():.0f}" for group in groups]
        lines.append(f"| {name.removeprefix('has_')}, % of scans | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the survey from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for survey.tsv")
    parser.add_argument("--scanner-preset", choices=PRESETS, help="default: any protocol")
    parser.add_argument("--scans", type=int, default=200, help="of each class (default: 200)")
    add_asset_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    options = parser.parse_args()
    assets = assets_of(options)
    protocols = (PRESETS[options.scanner_preset],) if options.scanner_preset else ()
    cohort = Cohort(("MS", "NMOSD") * options.scans, seed=options.seed, protocols=protocols)
    rows = []
    for number in range(len(cohort.diagnoses)):
        rows.append(_one(number, cohort, assets))
        if len(rows) % 50 == 0:
            print(f"{len(rows)} scans", file=sys.stderr, flush=True)
    table = pd.DataFrame(rows)
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "survey.tsv", sep="\t", index=False, na_rep="n/a")
    print(summary(table))
    area, low, high = leak(table)
    print(f"\nMS against NMOSD without the lesions: AUC {area:.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
