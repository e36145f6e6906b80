"""Results by site, pooled: for the cohort's page and for several output folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msnmo_bids.evaluation.meta.analysis import Study
from msnmo_bids.evaluation.meta.plots import forest_plot
from msnmo_bids.evaluation.meta.studies import Studies, mean_study, share_study
from msnmo_bids.evaluation.meta.summary import Analysis, analyse, sentences

DSC, ACC, SN, SP = "DSC (%)", "ACC (%)", "SN (%)", "SP (%)"


@dataclass(frozen=True)
class SiteScan:
    """What is known of one scan.

    Parameters
    ----------
    site : str
        Its site (or study, or data set): what is compared.
    subject : str
        Person, unique within the site; several scans of a person count as one.
    dsc : float or None
        Against a manual mask, 0 to 1; None without one.
    truth : str or None
        Known diagnosis; None when unknown.
    called : str or None
        Class that the model has named; None where it names none.
    """

    site: str
    subject: str
    dsc: float | None = None
    truth: str | None = None
    called: str | None = None


@dataclass(frozen=True)
class SitePooling:
    """One measure over all sites.

    Parameters
    ----------
    measure : str
        Heading with its unit, such as ``DSC (%)``.
    paragraphs : list of str
        What was pooled and found.
    figures : tuple of Path
        Forest plot: SVG and PNG; empty where nothing can be pooled.
    analysis : Analysis or None
        All numbers; None where no site has a value to pool.
    """

    measure: str
    paragraphs: list[str]
    figures: tuple[Path, ...]
    analysis: Analysis | None


def pool_sites(
    scans: Sequence[SiteScan], *, classes: Sequence[str], positive: str, figures: Path
) -> list[SitePooling]:
    """Pool DSC, accuracy, sensitivity and specificity over sites, with a forest plot of each.

    Parameters
    ----------
    scans : sequence of SiteScan
        Scans of all sites.
    classes : sequence of str
        Diagnoses that the model knows. Scans of people with another diagnosis, or where the model
        names none, count for DSC only.
    positive : str
        One of them: sensitivity is its share that is found, specificity that of all others.
    figures : Path
        Folder for ``sites_<measure>_forest.svg`` and ``.png``.

    Returns
    -------
    list of SitePooling
        Those measures that any scan has, in the order above; empty with fewer than two sites.
    """
    if len({scan.site for scan in scans}) < 2:
        return []
    made = []
    for data in site_studies(scans, classes=classes, positive=positive):
        if not data.studies:
            left = " ".join(f"{name}: {reason}." for name, reason in data.left_out)
            made.append(SitePooling(data.measure, [f"Nothing to pool. {left}"], (), None))
            continue
        found = analyse(data)
        files = [
            figures / f"sites_{data.name.lower()}_forest{suffix}" for suffix in (".svg", ".png")
        ]
        forest_plot(found, *files)
        made.append(SitePooling(data.measure, sentences(found), tuple(files), found))
    return made


def site_studies(
    scans: Sequence[SiteScan],
    *,
    classes: Sequence[str],
    positive: str,
    groups: Mapping[str, Mapping[str, str]] | None = None,
    noun: str = "site",
) -> list[Studies]:
    """Make a study of each site, for every measure that any scan has.

    Parameters
    ----------
    scans, classes, positive
        As for `pool_sites`.
    groups : mapping of str to mapping of str to str, optional
        Subgroups of each site, by column.
    noun : str, optional
        What a site is called.

    Returns
    -------
    list of Studies
        DSC as the mean of the people (%), the others as shares on the logit scale. A person counts
        with the mean of the scans.
    """
    judged = [scan for scan in scans if scan.truth in classes and scan.called in classes]
    right = [(scan, float(scan.truth == scan.called)) for scan in judged]
    called = [(scan, float((scan.truth == positive) == (scan.called == positive)))
              for scan in judged]  # fmt: skip
    values = {
        DSC: [(scan, 100 * scan.dsc) for scan in scans if scan.dsc is not None],
        ACC: right,
        SN: [(scan, value) for scan, value in called if scan.truth == positive],
        SP: [(scan, value) for scan, value in called if scan.truth != positive],
    }
    sites = list(dict.fromkeys(scan.site for scan in scans))
    of_site = groups or {}
    columns = tuple(dict.fromkeys(name for own in of_site.values() for name in own))
    unnamed = sum(scan.truth in classes and scan.called not in classes for scan in scans)
    note = f"In {unnamed} scans of a known diagnosis the model names none: they do not count."
    made = []
    for measure, known in values.items():
        if not known:
            continue
        make = _mean if measure == DSC else _share
        found = {site: make(site, _by_person(known, site), of_site.get(site, {})) for site in sites}
        studies = tuple(study for study in found.values() if isinstance(study, Study))
        left = tuple((site, why) for site, why in found.items() if isinstance(why, str))
        notes = (note,) if unnamed and measure != DSC else ()
        made.append(Studies(measure, studies, measure != DSC, left, columns, noun, notes))
    return made


_Make = Callable[[str, list[float], Mapping[str, str]], Study | str]


def _mean(site: str, values: list[float], groups: Mapping[str, str]) -> Study | str:
    return mean_study(site, values, groups)


def _share(site: str, values: list[float], groups: Mapping[str, str]) -> Study | str:
    return share_study(site, sum(values), len(values), groups)


def _by_person(known: Sequence[tuple[SiteScan, float]], site: str) -> list[float]:
    """Return the mean of each person's scans at a site."""
    people: dict[str, list[float]] = {}
    for scan, value in known:
        if scan.site == site:
            people.setdefault(scan.subject, []).append(value)
    return [float(np.mean(values)) for values in people.values()]
