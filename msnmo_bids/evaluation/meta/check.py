"""Compare what was computed with what a paper prints for the same table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from msnmo_bids.evaluation.meta.analysis import Estimate
from msnmo_bids.evaluation.meta.studies import Studies, rounded
from msnmo_bids.evaluation.meta.summary import MODEL_NAMES, Analysis

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_TIE = 1e-7  # a half may be rounded either way


@dataclass(frozen=True)
class Check:
    """One printed result beside the computed one.

    Parameters
    ----------
    what : str
        Key in the sidecar, such as ``Q between country``.
    printed, computed : str
        As it is printed; rounded to as many digits.
    agrees : bool
        Whether the computed numbers round to the printed ones.
    hint : str
        What may have gone wrong in print; empty when nothing is known.
    """

    what: str
    printed: str
    computed: str
    agrees: bool
    hint: str = ""


def checks(found: Analysis) -> list[Check]:
    """Compare an analysis with ``Printed`` of its table's sidecar.

    Parameters
    ----------
    found : Analysis
        A meta-analysis; its `Studies.printed` is what is compared.

    Returns
    -------
    list of Check
        In the order of the sidecar. A key that says nothing computed here does not agree.
    """
    computed = dict(_results(found))
    return [_check(what, text, computed.get(what, ())) for what, text in found.data.printed.items()]


def _results(found: Analysis) -> Iterator[tuple[str, tuple[float, ...]]]:
    data, pooled = found.data, found.pooled
    yield MODEL_NAMES["fixed"], _numbers(data, pooled.fixed)
    yield MODEL_NAMES["random"], _numbers(data, pooled.random)
    yield "Q", (pooled.q,)
    yield "tau²", (pooled.tau2,)
    yield "I² (%)", (100 * (pooled.i2 or 0.0),)
    for group in found.subgroups:
        yield f"Q between {group.column}", (group.q,)
        for value, own in group.pooled.items():
            yield f"Subgroup {group.column}: {value}", _numbers(data, own.fixed)
    for name, own in found.without.items():
        yield f"Without {name}", _numbers(data, own.chosen)


def _numbers(data: Studies, estimate: Estimate) -> tuple[float, ...]:
    return tuple(data.shown(value) for value in (estimate.effect, estimate.low, estimate.high))


def _check(what: str, text: str, values: tuple[float, ...]) -> Check:
    printed = _NUMBER.findall(text)
    if len(printed) != len(values):
        return Check(what, text, "n/a", False, "not a result of this analysis")
    ours = [rounded(value, _digits(word)) for value, word in zip(values, printed, strict=True)]
    agree = [
        abs(value - float(word)) <= 0.5 * 10.0 ** -_digits(word) + _TIE
        for value, word in zip(values, printed, strict=True)
    ]
    dropped = any(
        _lacks_a_digit(word, own) for word, own, right in zip(printed, ours, agree, strict=True)
        if not right
    )  # fmt: skip
    words = iter(ours)
    computed = _NUMBER.sub(lambda _: next(words), text)
    hint = "a digit was dropped in print" if dropped else ""
    return Check(what, text, computed, all(agree), hint)


def _digits(word: str) -> int:
    return len(word.partition(".")[2])


def _lacks_a_digit(printed: str, computed: str) -> bool:
    """Say whether a number becomes the printed one without one of its digits.

    Examples
    --------
    >>> _lacks_a_digit("2121.51", "21212.51")
    True
    """
    return any(computed[:k] + computed[k + 1 :] == printed for k in range(len(computed)))
