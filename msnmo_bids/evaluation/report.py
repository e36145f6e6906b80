"""Write what a cross-validation has found: tables, figures and one page."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msnmo_bids.bids.dataset import write_text, write_tsv
from msnmo_bids.evaluation.crossval import CrossValidation, read_crossval
from msnmo_bids.evaluation.overlays import (
    activation_figure,
    model_of_cams,
    overlay_figure,
    read_examples,
)
from msnmo_bids.evaluation.plots import calibration_figure, learning_curves, roc_figure
from msnmo_bids.evaluation.statistics import DRAWS
from msnmo_bids.evaluation.summary import SITE_COLUMNS, Measure, guesses, site_rows, summarise
from msnmo_bids.evaluation.tables import (
    Table,
    build_tables,
    label,
    lines,
    paper,
    remarks,
    write_table,
)
from msnmo_bids.reports.page import data_uri, render
from msnmo_bids.version import get_version

logger = logging.getLogger(__name__)
PAGE = "crossval.html"


@dataclass(frozen=True)
class Shown:
    """A figure of the page.

    Parameters
    ----------
    file : Path
        PNG.
    title, text : str
        Caption.
    wide : bool
        Whether it needs the page's whole width.
    """

    file: Path
    title: str
    text: str
    wide: bool = False

    @property
    def uri(self) -> str | None:
        """The file as a data URI."""
        return data_uri(self.file)


def write_evaluation(
    out: Path,
    *,
    classes: Sequence[str],
    positive: str,
    notes: Sequence[str],
    draws: int = DRAWS,
    seed: int = 0,
) -> Path:
    """Evaluate a cross-validation: write ``tables/``, ``figures/`` and ``crossval.html``.

    Parameters
    ----------
    out : Path
        Folder of the cross-validation, as `msnmo_bids.evaluation.crossval` describes it.
    classes : sequence of str
        Diagnoses, in the order of the networks.
    positive : str
        The positive one (NMOSD in the paper).
    notes : sequence of str
        What the page's reader must know of the data: which are simulated, whether any real NMOSD
        was used. They stand at its top.
    draws, seed : int, optional
        Of the bootstrap.

    Returns
    -------
    Path
        The page. Incomplete models are named in it, and in a warning.

    Raises
    ------
    MsnmoError
        If there is nothing to read, or a table is not as it should be.
    """
    found = read_crossval(out, classes=classes, positive=positive)
    gaps = [(label(m.name), m.gap) for m in found.models.values() if not m.complete]
    for name, gap in gaps:
        logger.warning("%s is incomplete: %s", name, gap)
    measures = {name: summarise(found, name, draws=draws, seed=seed) for name in found.models}
    tables = build_tables(found, measures)
    for table in tables:
        write_table(table, out / "tables")
    by_site = site_rows(found)
    write_tsv(out / "tables" / "sites.tsv", SITE_COLUMNS, by_site)
    figures = _draw(found, measures, out / "figures")
    page = out / PAGE
    write_text(page, _page(found, tables, figures, by_site, gaps, notes, draws))
    return page


def _draw(
    found: CrossValidation, measures: Mapping[str, Mapping[str, Measure]], folder: Path
) -> list[Shown]:
    """Draw all figures for which there are data."""
    baselines, ablations = (_models_of(*numbers) for numbers in (("4",), ("6", "7", "8", "9")))
    others = [name for name in found.models if name not in paper()["Models"]]
    examples = read_examples(found)
    figures: list[Shown] = []

    def add(file: Path | None, title: str, text: str, wide: bool = False) -> None:
        if file is not None:
            figures.append(Shown(file, title, text, wide))

    curves_mean = "Over all test scans; in brackets the 95 % interval of the area."
    add(
        roc_figure(found, [*baselines, *others], measures, folder / "figure-9_roc.png",
                   title="Joint model and classifiers"),
        "ROC curves of the classifiers (Fig. 9 of the paper)", curves_mean,
    )  # fmt: skip
    add(
        roc_figure(found, ablations, measures, folder / "figure-11_roc.png",
                   title="Joint model and its ablations"),
        "ROC curves of the ablations (Fig. 11)", curves_mean,
    )  # fmt: skip
    add(
        calibration_figure(found, [*baselines, *others], folder / "calibration.png"),
        "Calibration",
        f"Share of {found.positive} among scans of about equal probability, in five bins.",
    )
    colours = (
        "Red: true positive; green: false positive; yellow: false negative. Whatever is inside "
        "the outline belongs to the manual mask. The axial section with most lesion."
    )
    for stem, number, title in (
        ("figure-8_overlay", "3", "Lesions found by the segmentation methods (Fig. 8)"),
        ("figure-10_overlay", "5", "Lesions found with and without classification (Fig. 10)"),
    ):
        models = [name for name in _models_of(number) if name in found.models]
        add(overlay_figure(examples, models, folder / f"{stem}.png"), title, colours)
    if (model := model_of_cams(examples)) is not None:
        add(
            activation_figure(examples, model, found.classes, folder / "figure-12_cam.png"),
            "Class activation beside the manual mask (Fig. 12)",
            "Pink speaks for the class, green against it, against the mean of the classes. It "
            "shows what the network used, not what caused a lesion.",
        )
    add(
        learning_curves(found, folder / "learning-curves.png"),
        "Learning curves",
        "Running mean of the training loss of each fold; dashed with dots: validation. Losses of "
        "models with other tasks are not comparable.",
        wide=True,
    )
    return figures


def _models_of(*numbers: str) -> list[str]:
    """Return the models of some of the paper's tables, each once, in their order."""
    tables = paper()["Tables"]
    return list(dict.fromkeys(name for number in numbers for name in tables[number]["models"]))


def _page(
    found: CrossValidation,
    tables: Sequence[Table],
    figures: Sequence[Shown],
    by_site: Sequence[Mapping[str, Any]],
    gaps: Sequence[tuple[str, str]],
    notes: Sequence[str],
    draws: int,
) -> str:
    not_run = [
        about["label"] for name, about in paper()["Models"].items() if name not in found.models
    ]
    return render(
        "crossval.html.j2",
        tables=[(t, [lines(t, row) for row in t.rows], remarks(t)) for t in tables if t.rows],
        figures=figures,
        sites=by_site,
        site_model=label(str(by_site[0]["model"])) if by_site else "",
        guesses=guesses(found),
        gaps=gaps,
        not_run=not_run,
        notes=notes,
        classes=found.classes,
        positive=found.positive,
        folds=found.folds,
        subjects=len(found.plan),
        scans=len(set().union(*(model.scans.index for model in found.models.values()))),
        models=len(found.models),
        draws=draws,
        version=get_version(),
    )
