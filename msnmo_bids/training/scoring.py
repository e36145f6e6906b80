"""Test a trained network on scans that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from msnmo_bids.bids.dataset import atomic_path, write_tsv
from msnmo_bids.evaluation.crossval import SCANS, scan_columns
from msnmo_bids.evaluation.metrics import compare_masks, probability_columns
from msnmo_bids.evaluation.rule import rule_diagnosis
from msnmo_bids.labelled.samples import NativeGrid, Sample
from msnmo_bids.lesions.regions import locate_regions
from msnmo_bids.lesions.threshold import LesionCriteria, find_lesions
from msnmo_bids.model.cam import combined_cam
from msnmo_bids.model.joint import JointOutput
from msnmo_bids.training.prepared import PreparedScan
from msnmo_bids.training.steps import forward

#: Volumes of so many test scans are kept for the figures.
EXAMPLES = 4


@dataclass(frozen=True)
class ScanResult:
    """What a network says of one scan, beside the truth.

    Parameters
    ----------
    scan : PreparedScan
        The scan.
    row : dict
        Of a fold's ``scans.tsv``; None where there is no value.
    grid : NativeGrid
        The scan's own grid.
    labels : ndarray of int32, (X, Y, Z), or None
        Lesions that were found, numbered, on the scan's own grid (RAS order).
    volumes : dict of str to ndarray
        On the cube, for the figures: ``image``, ``zooms`` and, where there are any, ``truth``,
        ``prediction`` and ``cams``; empty unless they were asked for.
    """

    scan: PreparedScan
    row: dict[str, Any]
    grid: NativeGrid
    labels: np.ndarray | None
    volumes: dict[str, np.ndarray]


def evaluate_scan(
    network: nn.Module,
    scan: PreparedScan,
    classes: Sequence[str],
    criteria: LesionCriteria,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    with_volumes: bool = False,
) -> ScanResult:
    """Apply a network to a scan and compare what it says with the truth, on the scan's own grid.

    Parameters
    ----------
    network : Module
        ``forward(image, tasks=None) -> JointOutput``; on `device`, in evaluation mode.
    classes : sequence of str
        Names of the classes, in the network's order.
    criteria : LesionCriteria
        What counts as a lesion.
    with_volumes : bool, optional
        Keep the volumes for the figures.

    Raises
    ------
    MsnmoError
        If a file of the scan is missing or damaged.
    """
    sample, grid = scan.load(classes), scan.grid()
    image = torch.from_numpy(sample.image.astype(np.float32))[None, None].to(device)
    with torch.inference_mode():
        output = forward(network, image, None, precision)
    row = identity(scan)
    if output.class_logits is not None and sample.diagnosis is not None:
        probabilities = output.class_logits[0].double().softmax(0).tolist()
        row |= dict(zip(probability_columns(classes), probabilities, strict=True))
    labels = None
    if output.lesion_probability is not None:
        probability = output.lesion_probability[0, 0].cpu().numpy()
        labels = find_lesions(grid.to_native(probability), grid.voxel_volume, criteria).labels
        if scan.labelled.mask is not None:
            row |= compare_masks(scan.native_mask(), labels, grid.zooms)
    volumes = _volumes(grid, sample, output, criteria.threshold) if with_volumes else {}
    return ScanResult(scan, row, grid, labels, volumes)


def identity(scan: PreparedScan) -> dict[str, Any]:
    """Return the columns of ``scans.tsv`` that say which scan it is."""
    labelled = scan.labelled
    return {
        "dataset": labelled.dataset,
        "participant_id": f"sub-{labelled.subject}",
        "session_id": f"ses-{labelled.session}" if labelled.session else None,
        "scan": labelled.scan.prefix,
        "site": labelled.site,
        "diagnosis": labelled.diagnosis,
    }


def _volumes(
    grid: NativeGrid, sample: Sample, output: JointOutput, threshold: float
) -> dict[str, np.ndarray]:
    volumes = {"image": sample.image, "zooms": grid.transform.scale * np.asarray(grid.zooms)}
    if sample.lesions is not None:
        volumes["truth"] = sample.lesions
    if output.lesion_probability is not None:
        found = output.lesion_probability[0, 0] > threshold
        volumes["prediction"] = found.cpu().numpy().astype(np.uint8)
    if output.class_features is not None and output.class_weight is not None:
        with torch.inference_mode():
            cams = combined_cam(output.class_features, output.class_weight, sample.image.shape)
        volumes["cams"] = cams[0].cpu().numpy().astype(np.float16)
    return volumes


def rule_row(tested: ScanResult, classes: Sequence[str]) -> dict[str, Any]:
    """Apply the radiologists' rule to the lesions that a network found: a row of ``scans.tsv``.

    The rule's answer has the probability 1.

    Raises
    ------
    ValueError
        If the network did not look for lesions.
    """
    if tested.labels is None:
        raise ValueError("the rule needs lesions")
    row = identity(tested.scan)
    if tested.scan.labelled.diagnosis is None:
        return row
    values = tested.scan.native_image().get_fdata(dtype=np.float32)
    regions = locate_regions(values, tested.grid.brain, tested.grid.zooms)
    answer = rule_diagnosis(tested.labels, *regions)
    columns = zip(probability_columns(classes), classes, strict=True)
    return row | {column: float(name == answer) for column, name in columns}


def write_rows(
    rows: Iterable[dict[str, Any]], folder: Path, fold: int, classes: Sequence[str]
) -> None:
    """Write the ``scans.tsv`` of a fold into its folder, which completes it."""
    columns = scan_columns(classes)
    write_tsv(folder / SCANS, columns, [{**row, "fold": fold} for row in rows])


def choose_examples(test: Sequence[PreparedScan], classes: Sequence[str]) -> list[PreparedScan]:
    """Choose a few test scans with lesions for the figures, the diagnoses in turn.

    `test` is in the same order for every network; at most `EXAMPLES` are chosen.

    Raises
    ------
    MsnmoError
        If the file of a scan is missing or damaged.
    """
    turn: dict[str | None, int] = {}
    order = []
    for number, scan in enumerate(test):
        if scan.labelled.mask is not None:
            diagnosis = scan.labelled.diagnosis
            turn[diagnosis] = turn.get(diagnosis, -1) + 1
            order.append((turn[diagnosis], number))
    with_lesions = (
        test[number] for _, number in sorted(order) if np.any(test[number].load(classes).lesions)
    )
    return list(islice(with_lesions, EXAMPLES))


def write_example(tested: ScanResult, folder: Path) -> None:
    """Keep the volumes of a test scan for the figures, in ``examples`` of the fold's folder."""
    target = folder / "examples" / f"{tested.scan.name.replace('/', '_')}.npz"
    with atomic_path(target) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **tested.volumes)  # type: ignore[arg-type]
