"""Cross-validation: train and test each network on each fold; every fold is a job of its own.

The folder is described in `msnmo_bids.evaluation.crossval_results`. A fold is complete when its
``scans.tsv`` is there; what is complete is not done again, and a fold that was stopped goes on from
its checkpoint. So a cluster can run all folds side by side, into one folder. ``fold.json`` says
what the fold was made with: where that is something else now, the fold is refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from msnmo_bids.bids.dataset import atomic_path, read_record, write_json, write_tsv
from msnmo_bids.errors import MsnmoError, UsageError
from msnmo_bids.evaluation.crossval_results import REFERENCE, RULE, SCANS, scan_columns
from msnmo_bids.evaluation.metrics import compare_masks, probability_columns
from msnmo_bids.evaluation.rule import rule_diagnosis
from msnmo_bids.labelled.sample_file import NativeGrid, Sample
from msnmo_bids.labelled.scans import who
from msnmo_bids.lesions.regions import locate_regions
from msnmo_bids.lesions.threshold import LesionCriteria, find_lesions
from msnmo_bids.model import registry
from msnmo_bids.model.cam import combined_cam
from msnmo_bids.model.config import CLASSIFICATION, SEGMENTATION
from msnmo_bids.model.segmentation import JointOutput
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.fitting import Simulation, about, fit, write_site_weights
from msnmo_bids.training.folds import Folds, split_validation
from msnmo_bids.training.outputs import CHECKPOINT, differences
from msnmo_bids.training.prepared import PreparedScan
from msnmo_bids.training.processes import Ranks, TrainingInterrupted
from msnmo_bids.training.steps import forward

logger = logging.getLogger(__name__)

RECORD = "fold.json"
#: Volumes of so many test scans are kept for the figures.
EXAMPLES = 4
#: What a scan must have to train a task.
_LABELS = {SEGMENTATION: "lesion mask", CLASSIFICATION: "diagnosis"}


@dataclass(frozen=True)
class Experiment:
    """What all folds and networks of a cross-validation share.

    Parameters
    ----------
    scans, folds, classes
        All scans, which of them is tested in which fold, and the names of the classes.
    out : Path
        Folder of the cross-validation.
    width : float
        Factor of the networks' channels.
    validation_share : float
        Share of the training participants that choose the best weights; 0: none.
    """

    scans: Sequence[PreparedScan]
    folds: Folds
    classes: tuple[str, ...]
    config: TrainingConfig
    out: Path
    width: float = 1.0
    validation_share: float = 0.2
    simulation: Simulation | None = None
    device: str = "cpu"
    criteria: LesionCriteria = field(default_factory=LesionCriteria)

    def made_of(self) -> dict[str, Any]:
        """Return what the results of all folds depend on, JSON-ready."""
        content = {
            **about(self.scans, self.classes, self.simulation),
            "width": self.width,
            "validation share": self.validation_share,
            **self.config.identity(),
            **asdict(self.criteria),
        }
        return json.loads(json.dumps(content))

    def folder(self, model: str, fold: int) -> Path:
        """Return the folder of a fold of a network."""
        return self.out / "models" / model / f"fold-{fold}"


def run_fold(experiment: Experiment, model: str, fold: int) -> None:
    """Train and test one network of the registry on one fold, from 1, unless it is complete.

    Raises
    ------
    MsnmoError
        If the training cannot go on, was stopped, or nothing in this fold can be trained on.
    """
    folder = experiment.folder(model, fold)
    if (folder / SCANS).is_file():
        logger.info("%s, fold %d: complete already", model, fold)
        return
    entry = registry.entry(model)
    training, test = experiment.folds.split(experiment.scans, fold)
    training, validation = split_validation(
        usable(training, entry.tasks), experiment.validation_share, seed=fold
    )
    if not training:
        needs = " or a ".join(_LABELS[task] for task in entry.tasks)
        raise UsageError(
            f"{model}, fold {fold}: no training scan has a {needs}",
            remedy="Use fewer folds, or leave this network out (--models)",
        )
    logger.info(
        "%s, fold %d: %d scans to train on, %d to choose the weights by, %d to test",
        model, fold, len(training), len(validation), len(test),
    )  # fmt: skip
    torch.manual_seed(experiment.config.seed)
    network = fit(
        entry.build(experiment.classes, experiment.width),
        entry.loss,
        experiment.config,
        training,
        validation,
        folder,
        classes=experiment.classes,
        simulation=experiment.simulation,
        ranks=Ranks(device=experiment.device),
    )
    write_site_weights(
        folder / "weights.safetensors",
        network,
        name=f"{model}-fold-{fold}",
        training=training,
        validation=validation,
        criteria=experiment.criteria,
        config=experiment.config,
        device=experiment.device,
    )
    write_json(folder / RECORD, experiment.made_of())
    _test(experiment, network, model, fold, test)
    (folder / CHECKPOINT).unlink(missing_ok=True)  # with Adam's moments it is large


def _check_made_so(experiment: Experiment, model: str, fold: int) -> None:
    """Refuse a finished fold that was made of other data or with other settings."""
    folder = experiment.folder(model, fold)
    if not (folder / SCANS).is_file():
        return
    there, wanted = read_record(folder / RECORD), experiment.made_of()
    if there != wanted:
        how = differences(there, wanted) if there else f"it has no {RECORD}"
        raise UsageError(
            f"this fold is complete, but was made otherwise: {how}",
            file=folder,
            remedy="Give the data and settings that it was made with, choose another folder, or "
            "remove this one",
        )


def unlike_folds(out: Path) -> list[str]:
    """Name finished folds that were not all made of the same data with the same settings."""
    files = sorted(file.with_name(RECORD) for file in out.glob(f"models/*/fold-*/{SCANS}"))
    kinds: dict[str, tuple[Path, dict[str, Any]]] = {}
    for file in files:
        content = read_record(file) or {}
        kinds.setdefault(json.dumps(content, sort_keys=True), (file.parent, content))
    if len(kinds) < 2:
        return []
    (first, one), (second, other), *_ = kinds.values()
    places = " and ".join("/".join(folder.parts[-2:]) for folder in (first, second))
    return [f"The folds were not made alike, as {places}: {differences(one, other)}."]


def _test(
    experiment: Experiment,
    network: nn.Module,
    model: str,
    fold: int,
    test: Sequence[PreparedScan],
) -> None:
    folder = experiment.folder(model, fold)
    examples = choose_examples(test, experiment.classes)
    # The radiologists' rule is applied to the lesions that the joint model found.
    with_rule = model == REFERENCE and set(experiment.classes) == {"MS", "NMOSD"}
    rows, rule_rows = [], []
    for scan in test:
        tested = evaluate_scan(
            network,
            scan,
            experiment.classes,
            experiment.criteria,
            device=experiment.device,
            precision=experiment.config.precision,
            with_volumes=scan in examples,
        )
        rows.append(tested.row)
        if tested.volumes:
            write_example(tested, folder)
        if with_rule:
            rule_rows.append(rule_row(tested, experiment.classes))
    if with_rule:
        write_rows(rule_rows, experiment.folder(RULE, fold), fold, experiment.classes)
    write_rows(rows, folder, fold, experiment.classes)


def usable(scans: Sequence[PreparedScan], tasks: Sequence[str]) -> list[PreparedScan]:
    """Return the scans that have a label which one of the tasks needs."""
    return [
        scan
        for scan in scans
        if (SEGMENTATION in tasks and scan.labelled.mask is not None)
        or (CLASSIFICATION in tasks and scan.labelled.diagnosis is not None)
    ]


def run_folds(experiment: Experiment, models: Sequence[str], folds: Sequence[int]) -> list[str]:
    """Run folds of several networks one after the other; one that fails does not stop the others.

    What failed and why is returned, one line each.

    Raises
    ------
    UsageError
        When a fold is complete, but was made of other data or with other settings.
    TrainingInterrupted
        When a signal asked to stop.
    """
    for fold in folds:
        for model in models:
            _check_made_so(experiment, model, fold)
    failures = []
    for fold in folds:
        for model in models:
            try:
                run_fold(experiment, model, fold)
            except TrainingInterrupted:
                raise
            except MsnmoError as error:
                logger.error("%s, fold %d: %s", model, fold, error)
                failures.append(f"{model}, fold {fold}: {error}")
    return failures


@dataclass(frozen=True)
class ScanResult:
    """What a network says of one scan, beside the truth.

    Parameters
    ----------
    row : dict
        Of a fold's ``scans.tsv``; None where there is no value.
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
    known = scan.labelled
    return {**who(known, known.scan.prefix), "site": known.site, "diagnosis": known.diagnosis}


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
    """
    assert tested.labels is not None, "the network looks for lesions"
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
