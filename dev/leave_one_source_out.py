"""Leave-one-source-out: the figure of this project. ``python -m dev.leave_one_source_out OUT ...``.

Each source of real scans is tested by the weights of the fold that was trained without it
(``python -m dev.train_lesions RUNS/SOURCE --without SOURCE ...``); with several folders of such
trainings the mean of their networks is taken. The threshold of a fold is the one that does best on
what the *other* folds predict for their own sources; trainings are not nested. The smallest lesion
is the same for all. The mean is over people: the visits of a person count together as one.

What was predicted is kept in ``OUT`` and not predicted again; ``OUT/scans.tsv`` has a row per scan,
``OUT/summary.json`` the means.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from scipy import ndimage

from dev.pictures import draw
from dev.sources import SOURCES, labelled_data, person_of, source_of
from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.evaluation.metrics import compare_masks, dice
from msnmo_bids.labelled.sample_file import read_cubes
from msnmo_bids.lesions.threshold import CONNECTIVITY_26, LesionCriteria, find_lesions, rounded
from msnmo_bids.model.config import JointConfig
from msnmo_bids.model.inference import sees_mirror_image
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.preprocessing.cube import ROBUST, normalize
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.training.prepared import PreparedScan, prepare_scans

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(2, 19))
_NAIVE = 0.5
RUNS_HELP = "folder of a training per source; of several the mean is taken"
#: Smallest lesion (mm³). From 0 to 15 the mean DSC is the same within .001, so that a choice would
#: be chance; specks are counted as lesions without it.
SMALLEST = 10.0


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


def predict_cube(networks: Sequence[JointNetwork], image: np.ndarray) -> np.ndarray:
    """Return the lesion probability of a prepared cube, (D, H, W) float32, mean over networks."""
    cube = image.astype(np.float32)
    inside = cube != 0
    cube[inside] = normalize(cube[inside], ROBUST)
    tensor = torch.from_numpy(cube)[None, None].contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = []
        for number, network in enumerate(networks):
            mirror = (2,) if sees_mirror_image(number) else ()
            probability = network(tensor.flip(mirror)).lesion_probability
            found.append(probability.flip(mirror)[0, 0].numpy())
    return np.mean(found, axis=0)


def predict_source(
    source: str, runs: Sequence[Path], scans: Iterable[PreparedScan], out: Path
) -> list[FoldResult]:
    """Predict, or read, the scans of a source, by the trainings of its fold."""
    newest = max((run / "weights.safetensors").stat().st_mtime for run in runs)
    tested: list[FoldResult] = []
    networks: list[JointNetwork] = []
    for scan in scans:
        if source_of(*scan.person) != source:
            continue
        grid = scan.grid()
        file = out / source / f"{scan.name.replace('/', '_')}.npz"
        if not file.exists() or file.stat().st_mtime < newest:
            networks = networks or [load_network(run) for run in runs]
            image = read_cubes(scan.cube_file)[0]
            cube = predict_cube(networks, image)
            with atomic_path(file) as temporary:
                np.savez_compressed(temporary, probability=rounded(grid.to_native(cube)))
        with np.load(file) as archive:
            probability = archive["probability"]
        tested.append(FoldResult(scan, source, probability, scan.native_mask(), grid.zooms))
    return tested


def choose(grid: pd.DataFrame, others: Sequence[str], smallest: float) -> LesionCriteria:
    """Choose the threshold by the mean DSC over the people of some sources.

    Parameters
    ----------
    grid : DataFrame
        Of :func:`sweep`.
    others : sequence of str
        The sources.
    smallest : float
        Smallest lesion (mm³), one of those of the grid.
    """
    part = grid[grid["source"].isin(others) & (grid["smallest"] == smallest)]
    person = part.groupby(["threshold", "person"])["dsc"].mean()
    means = person.groupby("threshold").mean().sort_values(kind="stable")
    return LesionCriteria(float(means.index[-1]), smallest)


def score_steps(tested: Sequence[FoldResult], grid: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Score all scans by what stands behind the network, one step more each time.

    The threshold of a source is chosen on the others, wherever it is chosen. Return the rows of
    :func:`score` by the name of the last step; the last are those of all steps.
    """
    there = sorted(set(grid["source"]))

    def chosen(source: str, smallest: float) -> LesionCriteria:
        return choose(grid, [other for other in there if other != source] or there, smallest)

    steps: dict[str, Callable[[str], LesionCriteria]] = {
        f"threshold {_NAIVE:g}": lambda _: LesionCriteria(_NAIVE, 0.0),
        "threshold, chosen": lambda source: chosen(source, 0.0),
        f"and smallest lesion, {SMALLEST:g} mm³": lambda source: chosen(source, SMALLEST),
    }
    return {
        name: pd.DataFrame([score(one, criteria(one.source)) for one in tested])
        for name, criteria in steps.items()
    }


def sweep(tested: Sequence[FoldResult]) -> pd.DataFrame:
    """Return the DSC of each scan for each threshold, with and without the smallest lesion.

    The masks are those of :func:`~msnmo_bids.lesions.threshold.find_lesions`, counted component by
    component so that each threshold is labelled once.
    """
    rows = []
    for one in tested:
        voxel = float(np.prod(one.zooms))
        truth = one.truth != 0
        for threshold in THRESHOLDS:
            labels, count = ndimage.label(one.probability > threshold, CONNECTIVITY_26)
            sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
            overlaps = np.bincount(labels[truth], minlength=count + 1)[1:]
            for smallest in (0.0, SMALLEST):
                kept = sizes * voxel >= smallest - 1e-9
                value = dice(int(overlaps[kept].sum()), int(truth.sum()), int(sizes[kept].sum()))
                rows.append((one.source, one.person, one.scan.name, threshold, smallest, value))
    return pd.DataFrame(rows, columns=["source", "person", "scan", "threshold", "smallest", "dsc"])


def score(one: FoldResult, criteria: LesionCriteria) -> dict[str, Any]:
    """Compare the mask of a scan with the manual one."""
    found = find_lesions(one.probability, float(np.prod(one.zooms)), criteria)
    return {
        "source": one.source,
        "person": one.person,
        "scan": one.scan.name,
        "threshold": criteria.threshold,
        "smallest": criteria.min_volume,
        **compare_masks(one.truth, found.labels, one.zooms),
    }


def draw_scan(one: FoldResult, criteria: LesionCriteria, folder: Path) -> None:
    """Draw the slices of a scan on which the masks differ most, ``FOLDER/scan.png``."""
    found = find_lesions(one.probability, float(np.prod(one.zooms)), criteria).labels
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
        f"| {name} | {step['dsc']:.3f} | {step['lesion_f1']:.3f} |"
        for name, step in summary["steps"].items()
    )
    columns = {
        "source": "source", "scan": "scan", "threshold": "threshold",
        "dsc": "DSC", "ppv": "PPV", "tpr": "TPR",
        "lesion_f1": "lesion-wise F1", "true_volume_ml": "true, ml",
        "predicted_volume_ml": "found, ml",
    }  # fmt: skip
    table = rows.sort_values("dsc")[list(columns)].rename(columns=columns).round(2)
    heavy = summary["sensitivity_above_20_ml"]
    ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in summary["visit_ratios"].items())
    return f"""# Leave-one-source-out, scan by scan

Written by `python -m dev.leave_one_source_out`. Each scan is predicted by the fold that never
saw its source; the threshold of a fold was chosen on the other folds.

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

| behind the network | mean DSC over people | mean lesion-wise F1 |
|---|---|---|
{steps}

The worst first:

{_markdown(table)}
"""


def _markdown(table: pd.DataFrame) -> str:
    lines = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Predict what is missing, choose, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of predictions and tables")
    parser.add_argument("--data", type=Path, required=True, help="folder of the real data sets")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help=RUNS_HELP)
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
        runs = [runs / source for runs in options.runs]
        if all((run / "weights.safetensors").exists() for run in runs):
            tested += predict_source(source, runs, scans, options.out)
    if not tested:
        print(f"{len(scans)} scans are prepared; no fold is trained")
        return
    grid = sweep(tested)
    grid.to_csv(options.out / "sweep.tsv", sep="\t", index=False)
    steps = score_steps(tested, grid)
    *_, rows = steps.values()
    rows.to_csv(options.out / "scans.tsv", sep="\t", index=False, float_format="%.4f")
    columns = ["scan", "threshold", "dsc", "ppv", "tpr", "lesion_f1"]
    print(rows[[*columns, "true_volume_ml", "predicted_volume_ml"]].round(3).to_string())
    by_step = {name: summarise(scored) for name, scored in steps.items()}
    *_, after_all = by_step.values()
    chosen = {
        row["source"]: LesionCriteria(row["threshold"], row["smallest"])
        for row in rows.to_dict("records")
    }
    summary = {
        **after_all,
        "criteria": {source: asdict(criteria) for source, criteria in chosen.items()},
        "shipped": asdict(choose(grid, list(chosen), SMALLEST)),
        "steps": {
            name: {figure: means[figure] for figure in ("dsc", "lesion_f1")}
            for name, means in by_step.items()
        },
    }
    text = json.dumps(summary, indent=2)
    (options.out / "summary.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    if options.pictures is not None:
        for one in tested:
            draw_scan(one, chosen[one.source], options.pictures)
    if options.page is not None:
        options.page.write_text(page(rows, summary), encoding="utf-8")


if __name__ == "__main__":
    main()
