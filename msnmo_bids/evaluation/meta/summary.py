"""A whole meta-analysis of one measure, and what it found in sentences."""

from __future__ import annotations

from dataclasses import dataclass

from msnmo_bids.evaluation.meta.analysis import (
    ALPHA,
    I2_LIMIT,
    MIN_STUDIES_EGGER,
    RANDOM,
    Egger,
    Pooled,
    Subgroups,
    egger,
    leave_one_out,
    pool,
    subgroups,
)
from msnmo_bids.evaluation.meta.published import reference
from msnmo_bids.evaluation.meta.studies import Studies, rounded

RULE = (
    f"random effects (DerSimonian and Laird) where I² is at least {I2_LIMIT:.0%} and p < {ALPHA}, "
    "else a fixed effect"
).replace("%", " %")
MODEL_NAMES = {"fixed": "Fixed effect", "random": "Random effects"}
_NAMED = 12  # studies that are named in a sentence


@dataclass(frozen=True)
class Analysis:
    """Everything that is computed of one measure.

    Parameters
    ----------
    data : Studies
        What was pooled; at least one study.
    pooled : Pooled
        All of them.
    without : dict of str to Pooled
        All but the one named.
    subgroups : tuple of Subgroups
        For the columns that have at least two values.
    egger : Egger
        Test of the funnel plot.
    """

    data: Studies
    pooled: Pooled
    without: dict[str, Pooled]
    subgroups: tuple[Subgroups, ...]
    egger: Egger


def analyse(data: Studies) -> Analysis:
    """Pool studies in every way.

    Parameters
    ----------
    data : Studies
        At least one study.

    Returns
    -------
    Analysis
    """
    found = (subgroups(data.studies, column) for column in data.columns)
    return Analysis(
        data,
        pool(data.studies),
        leave_one_out(data.studies),
        tuple(group for group in found if group is not None),
        egger(data.studies),
    )


def sentences(found: Analysis) -> list[str]:
    """Say what was pooled, how, and with which result.

    Parameters
    ----------
    found : Analysis
        A meta-analysis.

    Returns
    -------
    list of str
        Paragraphs.
    """
    return [
        text
        for text in (
            _what(found.data),
            _result(found),
            _without(found),
            *(_between(found.data, group) for group in found.subgroups),
            _asymmetry(found),
            _published(found),
        )
        if text
    ]


def p_text(p: float) -> str:
    """Write a p-value.

    Examples
    --------
    >>> p_text(0.0), p_text(0.0421)
    ('p < 0.001', 'p = 0.042')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def heterogeneity(pooled: Pooled) -> str:
    """Write Q, I² and tau².

    Parameters
    ----------
    pooled : Pooled
        Of at least two studies.

    Returns
    -------
    str
    """
    return (
        f"Q = {rounded(pooled.q)} (df = {pooled.df}, {p_text(pooled.p or 0.0)}), "
        f"I² = {rounded(100 * (pooled.i2 or 0.0))} %, tau² = {rounded(pooled.tau2, 3)}"
    )


def egger_text(test: Egger) -> str:
    """Write the result of Egger's test.

    Examples
    --------
    >>> egger_text(Egger(reason="fewer than three studies"))
    'not estimable (fewer than three studies)'
    """
    if test.p is None or test.intercept is None:
        return f"not estimable ({test.reason})"
    return f"intercept {rounded(test.intercept)}, {p_text(test.p)}"


def _what(data: Studies) -> str:
    names = [study.name for study in data.studies]
    listed = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    count = f"{len(names)} {data.plural if len(names) != 1 else data.noun}"
    people = [study.subjects for study in data.studies]
    known = [number for number in people if number is not None]
    subjects = f" with {sum(known)} subjects" if len(known) == len(people) else ""
    scale = " Shares were pooled as logits and are shown in percent." if data.logit else ""
    text = f"Pooled: {data.measure} of {count}{subjects} ({listed}).{scale}"
    for name, reason in data.left_out:
        text += f" Left out: {name} ({reason})."
    return " ".join([text, *data.notes])


def _result(found: Analysis) -> str:
    data, pooled = found.data, found.pooled
    value = _estimate(data, pooled)
    if pooled.studies == 1:
        return f"{data.name} {value} (95 % interval): one {data.noun}, nothing to pool."
    other = pooled.fixed if pooled.model == RANDOM else pooled.random
    name = "fixed effect" if pooled.model == RANDOM else "random effects"
    text = (
        f"{MODEL_NAMES[pooled.model]}: {data.name} {value} (95 % interval). Heterogeneity: "
        f"{heterogeneity(pooled)}. The model follows from the rule of the meta-analysis that "
        f"ships with msnmo: {RULE}. For comparison, {name}: "
        f"{data.text(other.effect, other.low, other.high)}."
    )
    if pooled.model != RANDOM:
        return text
    ends = pooled.prediction
    if ends.low is None or ends.high is None:
        return f"{text} No prediction interval: {ends.reason}."
    low, high = (rounded(data.shown(end), 1) for end in (ends.low, ends.high))
    text += (
        f" A new {data.noun} is expected to have a true {data.name} of {low} to {high} "
        "(95 % prediction interval)."
    )
    if not data.logit and data.shown(ends.low) > ends.low and data.shown(ends.high) < ends.high:
        text += f" That is the whole range: {pooled.studies} {data.plural} are too few for it."
    return text


def _without(found: Analysis) -> str:
    if len(found.without) < 3:
        return ""
    data = found.data
    order = sorted(found.without, key=lambda name: found.without[name].chosen.effect)
    low, high = (
        f"{_estimate(data, found.without[k])} (without {k})" for k in (order[0], order[-1])
    )
    return f"Leaving out one {data.noun} at a time, {data.name} goes from {low} to {high}."


def _between(data: Studies, found: Subgroups) -> str:
    each = "; ".join(
        f"{name} {data.text(own.fixed.effect, own.fixed.low, own.fixed.high)}, k = {own.studies}"
        for name, own in found.pooled.items()
    )
    text = (
        f"By {found.column} (fixed effect within each, as in the paper): {each}. Between them "
        f"Q = {rounded(found.q)} (df = {found.df}, {p_text(found.p)}, "
        f"I² = {rounded(100 * found.i2, 1)} %). That takes all {data.plural} of a group for equal."
    )
    if found.q_random is None or found.p_random is None:
        return f"{text} Where a group has one {data.noun}, nothing more can be said."
    return (
        f"{text} With random effects within each group, Q = {rounded(found.q_random)} "
        f"({p_text(found.p_random)})."
    )


def _asymmetry(found: Analysis) -> str:
    text = f"Egger's test of the funnel plot: {egger_text(found.egger)}."
    if found.egger.p is None:
        return text
    if len(found.data.studies) < MIN_STUDIES_EGGER:
        text += f" With fewer than {MIN_STUDIES_EGGER} {found.data.plural} it has little power."
    if found.data.logit:
        text += " The error of a logit depends on the share itself: such a plot may look skewed."
    return text


def _published(found: Analysis) -> str:
    published = reference(found.data.measure)
    if published is None or found.data.printed:
        return ""
    return f"For orientation, {published.text}, from other people, scanners and manual masks."


def _estimate(data: Studies, pooled: Pooled) -> str:
    own = pooled.chosen
    return data.text(own.effect, own.low, own.high)
