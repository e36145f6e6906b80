"""Site beside diagnosis: what a classifier could learn from the scanner alone."""

from __future__ import annotations

from typing import Any

import pandas as pd

from msnmo_bids.evaluation.crossval import CrossValidation
from msnmo_bids.evaluation.paper_tables import REFERENCE
from msnmo_bids.evaluation.summary import classified

COLUMNS = ("dataset", "site", "diagnosis", "subjects", "scans", "model", "dsc", "dsc_scans",
           "acc", "acc_scans")  # fmt: skip


def site_rows(found: CrossValidation) -> list[dict[str, Any]]:
    """Count subjects and scans by data set, site and diagnosis, with a model's results in each.

    Parameters
    ----------
    found : CrossValidation
        All results.

    Returns
    -------
    list of dict
        By `COLUMNS`. Subjects are those of the plan, scans those of the joint model (else of the
        first one), as are the mean DSC and ACC (0 to 1, None without a scan).
    """
    model = REFERENCE if REFERENCE in found.models else next(iter(found.models))
    scans = found.models[model].scans
    judged = classified(found, scans)
    right = (judged["called"] == judged["label"]).reindex(scans.index)
    keys = ["dataset", "site", "diagnosis"]
    tested = dict(list(scans.assign(right=right).groupby(keys)))
    rows = []
    for key, people in found.plan.groupby(keys):
        own = tested.get(key, pd.DataFrame(columns=["dsc", "right"], dtype=float))
        row: dict[str, Any] = dict(zip(keys, key, strict=True))
        row |= {"subjects": len(people), "scans": len(own), "model": model}
        for name, column in (("dsc", own["dsc"]), ("acc", own["right"])):
            values = column.dropna().astype(float)
            row[name] = float(values.mean()) if len(values) else None
            row[f"{name}_scans"] = len(values)
        rows.append(row)
    return rows


def guesses(found: CrossValidation) -> tuple[float, float] | None:
    """Return how often a guess is right that does not look at the image.

    Parameters
    ----------
    found : CrossValidation
        All results.

    Returns
    -------
    by_site, by_majority : float
        Share of the subjects whose diagnosis is the most frequent one of their site, and the most
        frequent one of all. None when no diagnosis is known.
    """
    known = found.plan[found.plan["diagnosis"].isin(found.classes)]
    if not len(known):
        return None
    by_site = known.groupby(["dataset", "site"])["diagnosis"].agg(_most_frequent).sum()
    return float(by_site) / len(known), _most_frequent(known["diagnosis"]) / len(known)


def _most_frequent(diagnoses: pd.Series) -> int:
    return int(diagnoses.value_counts().iloc[0])
