"""The tables of a meta-analysis: their columns with what they mean, and their rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msnmo_bids.evaluation.meta.analysis import RANDOM, Estimate, Pooled
from msnmo_bids.evaluation.meta.studies import Studies
from msnmo_bids.evaluation.meta.summary import Analysis

_MEASURE = {"measure": {"Description": "What was measured, with its unit"}}
_ENDS = {
    "effect": {"Description": "Effect, in the unit of the measure"},
    "low": {"Description": "Lower end of its 95 % interval"},
    "high": {"Description": "Upper end of its 95 % interval"},
}
_SPREAD: dict[str, dict[str, Any]] = {
    "studies": {"Description": "Number of studies"},
    "model": {"Description": "Model of the effect"},
    "chosen": {"Description": "Whether the rule chooses this model", "Levels": {
        "yes": "Chosen", "no": "For comparison"}},
    **_ENDS,
    "q": {"Description": "Cochran's Q"},
    "df": {"Description": "Its degrees of freedom"},
    "p": {"Description": "Its p-value"},
    "i2": {"Description": "I², 0 to 1"},
    "tau2": {"Description": "Variance between studies (DerSimonian and Laird), on the scale of "
             "the pooling: logit for shares of counts"},
}  # fmt: skip

#: Name of each table, and the description of each of its columns.
TABLES: dict[str, dict[str, dict[str, Any]]] = {
    "studies": {
        **_MEASURE,
        "study": {"Description": "Study, site or folder"},
        "subjects": {"Description": "People in it"},
        **_ENDS,
        "weight_fixed": {"Description": "Share of the weight, fixed effect"},
        "weight_random": {"Description": "Share of the weight, random effects"},
        "left_out": {"Description": "Why it was not pooled; n/a where it was"},
    },
    "pooled": {
        **_MEASURE,
        **_SPREAD,
        "prediction_low": {"Description": "Lower end of the 95 % prediction interval"},
        "prediction_high": {"Description": "Upper end of the 95 % prediction interval"},
        "egger_intercept": {"Description": "Intercept of Egger's test"},
        "egger_p": {"Description": "Its p-value"},
        "egger_reason": {"Description": "Why Egger's test is not estimable"},
    },
    "subgroups": {
        **_MEASURE,
        "column": {"Description": "Subgroup column"},
        "value": {"Description": "Subgroup; 'between' for the test between them"},
        **_SPREAD,
    },
    "leave-one-out": {
        **_MEASURE,
        "without": {"Description": "Study that was left out"},
        **_SPREAD,
    },
}


def table_rows(name: str, found: Analysis) -> list[dict[str, Any]]:
    """Return the rows of a table.

    Parameters
    ----------
    name : str
        Key of `TABLES`.
    found : Analysis
        One measure.

    Returns
    -------
    list of dict
        Numbers in full; missing ones are None or lack.
    """
    makers: dict[str, Callable[[Analysis], list[dict[str, Any]]]] = {
        "studies": _studies,
        "pooled": _pooled,
        "subgroups": _subgroups,
        "leave-one-out": _without,
    }
    return [{"measure": found.data.measure, **row} for row in makers[name](found)]


def _studies(found: Analysis) -> list[dict[str, Any]]:
    data, pooled = found.data, found.pooled
    rows = [
        {
            "study": study.name,
            "subjects": study.subjects,
            **_ends(data, study.estimate),
            "weight_fixed": fixed,
            "weight_random": random,
        }
        for study, fixed, random in zip(
            data.studies, pooled.weights_fixed, pooled.weights_random, strict=True
        )
    ]
    return rows + [{"study": name, "left_out": reason} for name, reason in data.left_out]


def _pooled(found: Analysis) -> list[dict[str, Any]]:
    data, ends = found.data, found.pooled.prediction
    rows = _both(data, found.pooled)
    for row in rows:
        if row["model"] == RANDOM and ends.low is not None and ends.high is not None:
            row["prediction_low"] = data.shown(ends.low)
            row["prediction_high"] = data.shown(ends.high)
        row["egger_intercept"], row["egger_p"] = found.egger.intercept, found.egger.p
        row["egger_reason"] = found.egger.reason
    return rows


def _subgroups(found: Analysis) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for group in found.subgroups:
        for value, own in group.pooled.items():
            rows += [
                {"column": group.column, "value": value, **row} for row in _both(found.data, own)
            ]
        between = {"column": group.column, "value": "between", "df": group.df}
        between["studies"] = sum(own.studies for own in group.pooled.values())
        rows.append({**between, "model": "fixed", "q": group.q, "p": group.p, "i2": group.i2})
        if group.q_random is not None:
            rows.append({**between, "model": RANDOM, "q": group.q_random, "p": group.p_random})
    return rows


def _without(found: Analysis) -> list[dict[str, Any]]:
    return [
        {"without": name, **row}
        for name, own in found.without.items()
        for row in _both(found.data, own)
    ]


def _both(data: Studies, pooled: Pooled) -> list[dict[str, Any]]:
    common = {
        "studies": pooled.studies, "q": pooled.q, "df": pooled.df, "p": pooled.p, "i2": pooled.i2,
        "tau2": pooled.tau2,
    }  # fmt: skip
    return [
        {
            **common,
            "model": model,
            "chosen": "yes" if model == pooled.model else "no",
            **_ends(data, estimate),
        }
        for model, estimate in (("fixed", pooled.fixed), (RANDOM, pooled.random))
    ]


def _ends(data: Studies, estimate: Estimate) -> dict[str, float]:
    return {
        "effect": data.shown(estimate.effect),
        "low": data.shown(estimate.low),
        "high": data.shown(estimate.high),
    }
