"""Write what a cross-validation has found: tables, figures and one page."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msnmo_bids.bids.dataset import write_text, write_tsv
from msnmo_bids.evaluation.crossval import CrossValidation, read_crossval
from msnmo_bids.evaluation.overlays import (
    Example,
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
AREAS = "Over all test scans; in brackets the 95 % interval of the area."
OVERLAY = (
    "Red: true positive; green: false positive; yellow: false negative. Whatever is inside the "
    "outline belongs to the manual mask. The axial section with most lesion."
)
ACTIVATION = (
    "Pink speaks for the class, green against it, against the mean of the classes. It shows what "
    "the network used, not what caused a lesion."
)


@dataclass(frozen=True)
class Shown:
    """A figure (PNG) with its caption, and whether it needs the page's whole width."""

    file: Path | None
    title: str
    text: str
    wide: bool = False

    @property
    def uri(self) -> str | None:
        """The file as a data URI."""
        return data_uri(self.file) if self.file else None


def write_evaluation(
    out: Path,
    *,
    classes: Sequence[str],
    positive: str,
    notes: Sequence[str],
    draws: int = DRAWS,
) -> Path:
    """Evaluate a cross-validation: write ``tables/``, ``figures/`` and ``crossval.html``.

    Parameters
    ----------
    out : Path
        Folder of the cross-validation, as `msnmo_bids.evaluation.crossval` describes it.
    classes, positive : sequence of str, str
        Diagnoses, in the order of the networks; the positive one (NMOSD in the paper).
    notes : sequence of str
        What the page's reader must know of the data: which are simulated, whether any real NMOSD
        was used. They stand at its top.
    draws : int, optional
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
    measures = {name: summarise(found, name, draws=draws) for name in found.models}
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
    examples = read_examples(found)
    baselines, ablations = _models_of("4"), _models_of("6", "7", "8", "9")
    baselines += [name for name in found.models if name not in paper()["Models"]]
    over = "Joint model and classifiers"
    roc = roc_figure(found, baselines, measures, folder / "figure-9_roc.png", title=over)
    over = "Joint model and its ablations"
    ablated = roc_figure(found, ablations, measures, folder / "figure-11_roc.png", title=over)
    drawn = [
        Shown(roc, "ROC curves of the classifiers (Fig. 9 of the paper)", AREAS),
        Shown(ablated, "ROC curves of the ablations (Fig. 11)", AREAS),
        Shown(
            calibration_figure(found, baselines, folder / "calibration.png"),
            "Calibration",
            f"Share of {found.positive} among scans of about equal probability, in five bins.",
        ),
        *_draw_examples(found, examples, folder),
        Shown(
            learning_curves(found, folder / "learning-curves.png"),
            "Learning curves",
            "Running mean of the training loss of each fold; dashed with dots: validation. Losses "
            "of models with other tasks are not comparable.",
            wide=True,
        ),
    ]
    return [shown for shown in drawn if shown.file is not None]


def _draw_examples(
    found: CrossValidation, examples: list[Example], folder: Path
) -> Iterator[Shown]:
    """Draw what models found in the example scans, and where the classifier looked."""
    for stem, number, title in (
        ("figure-8_overlay", "3", "Lesions found by the segmentation methods (Fig. 8)"),
        ("figure-10_overlay", "5", "Lesions found with and without classification (Fig. 10)"),
    ):
        models = [name for name in _models_of(number) if name in found.models]
        yield Shown(overlay_figure(examples, models, folder / f"{stem}.png"), title, OVERLAY)
    if (model := model_of_cams(examples)) is not None:
        file = activation_figure(examples, model, found.classes, folder / "figure-12_cam.png")
        yield Shown(file, "Class activation beside the manual mask (Fig. 12)", ACTIVATION)


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
