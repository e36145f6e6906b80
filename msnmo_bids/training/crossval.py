"""Cross-validation: train and test each network on each fold; every fold is a job of its own.

The folder is described in `msnmo_bids.evaluation.crossval`. A fold is complete when its
``scans.tsv`` is there; what is complete is not done again, and a fold that was stopped goes on from
its checkpoint. So a cluster can run all folds side by side, into one folder.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from msnmo_bids.errors import MsnmoError, UsageError
from msnmo_bids.evaluation.crossval import REFERENCE, RULE, SCANS
from msnmo_bids.lesions.threshold import LesionCriteria
from msnmo_bids.model import registry
from msnmo_bids.model.config import CLASSIFICATION, SEGMENTATION
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.fitting import Simulation, fit, write_site_weights
from msnmo_bids.training.folds import Folds, split_validation
from msnmo_bids.training.outputs import CHECKPOINT
from msnmo_bids.training.prepared import PreparedScan
from msnmo_bids.training.processes import Ranks, TrainingInterrupted
from msnmo_bids.training.scoring import (
    choose_examples,
    evaluate_scan,
    rule_row,
    write_example,
    write_rows,
)

logger = logging.getLogger(__name__)

#: What a scan must have to train a task.
_LABELS = {SEGMENTATION: "lesion mask", CLASSIFICATION: "diagnosis"}


@dataclass(frozen=True)
class Experiment:
    """What all folds and networks of a cross-validation share.

    Parameters
    ----------
    scans, folds, classes
        All scans, which of them is tested in which fold, and the names of the classes.
    config, device, simulation
        How and where to train; simulated brains beside the real ones.
    out : Path
        Folder of the cross-validation.
    width : float
        Factor of the networks' channels.
    validation_share : float
        Share of the training participants that choose the best weights; 0: none.
    criteria : LesionCriteria
        What counts as a lesion.
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
    _test(experiment, network, model, fold, test)
    (folder / CHECKPOINT).unlink(missing_ok=True)  # with Adam's moments it is large


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
    TrainingInterrupted
        When a signal asked to stop.
    """
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
