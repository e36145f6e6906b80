"""Leave-one-source-out: the figure of this project. ``python -m dev.leave_one_source_out OUT ...``.

Each source of real scans is tested by the weights of the fold that was trained without it
(``python -m dev.train_lesions RUNS/SOURCE --without SOURCE ...``); trainings are not nested. What
stands behind the network, `CRITERIA`, is the same for all and not fitted. The mean is over people:
the visits of a person count together as one.

What was predicted is kept in ``OUT`` and not predicted again; ``OUT/scans.tsv`` has a row per scan,
``OUT/summary.json`` the means.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from dev.pictures import draw
from dev.sources import SOURCES, labelled_data, person_of, source_of
from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.evaluation.metrics import compare_masks
from msnmo_bids.labelled.sample_file import read_cubes
from msnmo_bids.lesions.threshold import LesionCriteria, find_lesions, rounded
from msnmo_bids.model.config import JointConfig
from msnmo_bids.model.device import select_precision
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.preprocessing.cube import ROBUST, normalize_brain
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.training.prepared import PreparedScan, prepare_scans

RUNS_HELP = "folder of a training per source"
#: Of the shipped weights. A voxel is lesion where that is likelier than not. The smallest lesion
#: changes the mean DSC by less than .001: it keeps specks out of the lesion table.
CRITERIA = LesionCriteria(threshold=0.5, min_volume=10.0)
_OTHERS = (0.3, 0.4, 0.6, 0.7, 0.8)  # thresholds that a user may ask for


@dataclass(frozen=True)
class FoldResult:
    """A scan and what its fold predicts for it.

    Parameters
    ----------
    scan : PreparedScan
        The scan.
    source : str
        Its source.
    probability : ndarray of float32, (X, Y, Z)
        Lesion probability on the scan's own grid, RAS order.
    truth : ndarray of uint8, (X, Y, Z)
        Manual mask.
    zooms : tuple of float, (3,)
        Voxel size (mm).
    """

    scan: PreparedScan
    source: str
    probability: np.ndarray
    truth: np.ndarray
    zooms: tuple[float, float, float]

    @property
    def person(self) -> str:
        """Data set and label; visits of a person have the same."""
        return "/".join(person_of(*self.scan.person))


def load_network(run: Path) -> JointNetwork:
    """Load the weights that a training wrote."""
    record = json.loads((run / "training.json").read_text(encoding="utf-8"))
    network = JointNetwork(JointConfig(**record["network"]))
    network.load_state_dict(load_file(run / "weights.safetensors"))  # fp16 in the file
    return network.eval()


def predict_cube(network: JointNetwork, image: np.ndarray) -> np.ndarray:
    """Return the lesion probability of a prepared cube, (D, H, W) float32."""
    tensor = torch.from_numpy(normalize_brain(image, ROBUST))[None, None]
    tensor = tensor.contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode(), arithmetic():
        return network(tensor).lesion_probability[0, 0].numpy()


def arithmetic() -> torch.autocast:
    """Return the context of the processor's fastest arithmetic: bfloat16 where it has it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=select_precision() == "bf16")


def predict_source(
    source: str, run: Path, scans: Iterable[PreparedScan], out: Path
) -> list[FoldResult]:
    """Predict, or read, the scans of a source, by the training of its fold."""
    newest = (run / "weights.safetensors").stat().st_mtime
    tested: list[FoldResult] = []
    network: JointNetwork | None = None
    for scan in scans:
        if source_of(*scan.person) != source:
            continue
        grid = scan.grid()
        file = out / source / f"{scan.name.replace('/', '_')}.npz"
        if not file.exists() or file.stat().st_mtime < newest:
            network = network or load_network(run)
            cube = predict_cube(network, read_cubes(scan.cube_file)[0])
            with atomic_path(file) as temporary:
                np.savez_compressed(temporary, probability=rounded(grid.to_native(cube)))
        with np.load(file) as archive:
            probability = archive["probability"]
        tested.append(FoldResult(scan, source, probability, scan.native_mask(), grid.zooms))
    return tested


def score_steps(tested: Sequence[FoldResult]) -> dict[str, pd.DataFrame]:
    """Score all scans by what stands behind the network, and by other thresholds.

    Return the rows of :func:`score` by the name of the criteria, the shipped ones first.
    """
    own, smallest = CRITERIA.threshold, CRITERIA.min_volume
    steps = {
        f"threshold {threshold:g}, smallest lesion {smallest:g} mm³": LesionCriteria(
            threshold, smallest
        )
        for threshold in (own, *_OTHERS)
    } | {f"threshold {own:g} alone": LesionCriteria(own, 0.0)}
    return {
        name: pd.DataFrame([score(one, criteria) for one in tested])
        for name, criteria in steps.items()
    }


def score(one: FoldResult, criteria: LesionCriteria = CRITERIA) -> dict[str, Any]:
    """Compare the mask of a scan with the manual one."""
    found = find_lesions(one.probability, float(np.prod(one.zooms)), criteria)
    return {
        "source": one.source,
        "person": one.person,
        "scan": one.scan.name,
        **compare_masks(one.truth, found.labels, one.zooms),
    }


def draw_scan(one: FoldResult, folder: Path) -> None:
    """Draw the slices of a scan on which the masks differ most, ``FOLDER/scan.png``."""
    found = find_lesions(one.probability, float(np.prod(one.zooms)), CRITERIA).labels
    value = compare_masks(one.truth, found, one.zooms)["dsc"]
    title = f"{one.scan.name}: DSC {value:.2f}; green: manual, red: found"
    image = one.scan.native_image().get_fdata(dtype=np.float32)
    draw(image, one.truth, found, title, folder / f"{one.scan.name.replace('/', '_')}.png")


def summarise(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the means over people, over all and by source, and what a mean hides."""
    people = rows.groupby(["source", "person"], as_index=False).mean(numeric_only=True)
    ratio = rows["predicted_volume_ml"] / rows["true_volume_ml"]
    heavy = rows[rows["true_volume_ml"] > 20]
    worst = rows.sort_values("dsc").iloc[0]
    return {
        "people": len(people),
        "scans": len(rows),
        "dsc": people["dsc"].mean(),
        "lesion_f1": people["lesion_f1"].mean(),
        "dsc_by_source": people.groupby("source")["dsc"].mean().to_dict(),
        "volume_between_half_and_twice": int(((ratio >= 0.5) & (ratio <= 2)).sum()),
        "sensitivity_above_20_ml": heavy["tpr"].mean(),
        "worst": {"scan": worst["scan"], "dsc": worst["dsc"]},
        "visit_ratios": visit_ratios(rows),
    }


def visit_ratios(rows: pd.DataFrame) -> dict[str, float]:
    """Return how far volumes change from visit to visit as the true ones do.

    Parameters
    ----------
    rows : DataFrame
        Of :func:`score`.

    Returns
    -------
    dict of str to float
        Scan and found volume over true volume, both relative to the person's first visit; 1 is
        right. Only people with several visits.
    """
    ratios: dict[str, float] = {}
    for _, visits in rows.sort_values("scan").groupby("person"):
        share = visits["predicted_volume_ml"] / visits["true_volume_ml"]
        relative = (share / share.iloc[0]).iloc[1:]
        ratios.update(zip(visits["scan"].iloc[1:], relative.astype(float), strict=True))
    return ratios


def page(rows: pd.DataFrame, summary: dict[str, Any]) -> str:
    """Return the page of all figures (Markdown)."""
    by_source = "\n".join(
        f"| {source} | {dsc:.3f} |" for source, dsc in summary["dsc_by_source"].items()
    )
    steps = "\n".join(
        f"| {name} | {step['dsc']:.3f} | {step['lesion_f1']:.3f} "
        f"| {step['volume_between_half_and_twice']} | {step['sensitivity_above_20_ml']:.2f} |"
        for name, step in summary["steps"].items()
    )
    columns = {
        "source": "source", "scan": "scan",
        "dsc": "DSC", "ppv": "PPV", "tpr": "TPR",
        "lesion_f1": "lesion-wise F1", "true_volume_ml": "true, ml",
        "predicted_volume_ml": "found, ml",
    }  # fmt: skip
    table = rows.sort_values("dsc")[list(columns)].rename(columns=columns).round(2)
    heavy = summary["sensitivity_above_20_ml"]
    ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in summary["visit_ratios"].items())
    return f"""# Leave-one-source-out, scan by scan

Written by `python -m dev.leave_one_source_out`. Each scan is predicted by the fold that never
saw its source; trainings are not nested. Threshold and smallest lesion are the same for all.

| | |
|---|---|
| mean DSC over {summary["people"]} people | **{summary["dsc"]:.3f}** |
| mean lesion-wise F1 over people | {summary["lesion_f1"]:.3f} |
| volume between half and twice the true one | {summary["volume_between_half_and_twice"]} of \
{summary["scans"]} scans |
| voxel-wise sensitivity, scans above 20 ml | {heavy:.2f} |
| found / true volume, relative to the first visit (1 is right) | {ratios} |
| worst scan | {summary["worst"]["scan"]}: {summary["worst"]["dsc"]:.2f} |

| source left out | mean DSC over its people |
|---|---|
{by_source}

| behind the network | mean DSC over people | mean lesion-wise F1 | scans with half to twice the \
volume | sensitivity above 20 ml |
|---|---|---|---|---|
{steps}

The worst first:

{_markdown(table)}
"""


def _markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Predict what is missing, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of predictions and tables")
    parser.add_argument("--data", type=Path, required=True, help="folder of the real data sets")
    parser.add_argument("--runs", type=Path, required=True, help=RUNS_HELP)
    parser.add_argument("--cache", type=Path, required=True, help="folder of prepared scans")
    parser.add_argument("--page", type=Path, help="Markdown page to write")
    parser.add_argument("--pictures", type=Path, help="folder of an image per scan")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scans, _ = prepare_scans(
        labelled_data(options.data),
        cache_dir=options.cache,
        work_dir=options.out / "work",
        settings=ProcessingSettings(skull_strip="deepbet", bias_correction="antspyx"),
        plugin="Linear",
    )
    tested: list[FoldResult] = []
    for source in SOURCES:
        run = options.runs / source
        if (run / "weights.safetensors").exists():
            tested += predict_source(source, run, scans, options.out)
    if not tested:
        print(f"{len(scans)} scans are prepared; no fold is trained")
        return
    steps = score_steps(tested)
    rows, *_ = steps.values()
    rows.to_csv(options.out / "scans.tsv", sep="\t", index=False, float_format="%.4f")
    columns = ["scan", "dsc", "ppv", "tpr", "lesion_f1"]
    print(rows[[*columns, "true_volume_ml", "predicted_volume_ml"]].round(3).to_string())
    figures = ("dsc", "lesion_f1", "volume_between_half_and_twice", "sensitivity_above_20_ml")
    by_step = {name: summarise(scored) for name, scored in steps.items()}
    shipped, *_ = by_step.values()
    summary = {
        **shipped,
        "steps": {name: {one: means[one] for one in figures} for name, means in by_step.items()},
    }
    text = json.dumps(summary, indent=2)
    (options.out / "summary.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    if options.pictures is not None:
        for one in tested:
            draw_scan(one, options.pictures)
    if options.page is not None:
        options.page.write_text(page(rows, summary), encoding="utf-8")


if __name__ == "__main__":
    main()
