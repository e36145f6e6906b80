"""Studies or sites with one measure, ready to be pooled, and the scale on which they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal

import numpy as np

from msnmo_bids.evaluation.meta.analysis import Study
from msnmo_bids.evaluation.statistics import MIN_SUBJECTS

#: Added to right and wrong where one of them is 0, as metafor and RevMan's diagnostic tests do.
CORRECTION = 0.5
#: Measures that lie between 0 and 100.
SHARES = tuple(f"{name} (%)" for name in ("DSC", "PPV", "TPR", "ACC", "SN", "SP", "AUC"))


@dataclass(frozen=True)
class Studies:
    """What is pooled into one number.

    Parameters
    ----------
    measure : str
        Heading with its unit, such as ``DSC (%)``.
    studies : tuple of Study
        In the order of the table.
    logit : bool
        Whether effects are logits of shares; they are shown in percent. Otherwise they are shown
        as they are.
    left_out : tuple of (str, str)
        Name and reason of those that cannot be pooled.
    columns : tuple of str
        Subgroup columns.
    noun : str
        What a study is: ``study``, ``site`` or ``folder``.
    notes : tuple of str
        What else a reader must know of them: sentences.
    printed : mapping of str to str
        What a paper prints for them, by the names of `msnmo_bids.evaluation.meta.check`.
    """

    measure: str
    studies: tuple[Study, ...]
    logit: bool = False
    left_out: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, ...] = ()
    noun: str = "study"
    notes: tuple[str, ...] = ()
    printed: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The measure without its unit.

        Examples
        --------
        >>> Studies("DSC (%)", ()).name
        'DSC'
        """
        return self.measure.split(" (")[0]

    @property
    def plural(self) -> str:
        """What several studies are."""
        return {"study": "studies"}.get(self.noun, f"{self.noun}s")

    def shown(self, value: float) -> float:
        """Return a value on the scale of the measure.

        Parameters
        ----------
        value : float
            On the scale of the pooling.

        Returns
        -------
        float
            Percent for logits, else `value`; not beyond 0 and 100 for the measures in `SHARES`,
            whose intervals by the normal distribution know no ends.
        """
        if self.logit:
            return float(100 / (1 + np.exp(-value)))
        return min(max(value, 0.0), 100.0) if self.measure in SHARES else value

    def text(self, effect: float, low: float, high: float, digits: int = 2) -> str:
        """Return an effect with its interval, as the paper writes it.

        Examples
        --------
        >>> Studies("DSC (%)", ()).text(63.78, 58.2866, 69.2734)
        '63.78 [58.29, 69.27]'
        """
        middle, *ends = (rounded(self.shown(value), digits) for value in (effect, low, high))
        return f"{middle} [{', '.join(ends)}]"


def mean_study(
    name: str, values: Sequence[float], groups: Mapping[str, str] | None = None
) -> Study | str:
    """Make a study of the mean of one value a person.

    Parameters
    ----------
    name : str
        Of the site.
    values : sequence of float
        One a person.
    groups : mapping of str to str, optional
        As for `Study`.

    Returns
    -------
    Study or str
        Effect: the mean; se: s.d. / √n. Why there is none, for fewer than
        `msnmo_bids.evaluation.statistics.MIN_SUBJECTS` people (their s.d. says too little to
        weigh a site) and for equal values.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < MIN_SUBJECTS:
        return f"too few subjects: {len(array)}, at least {MIN_SUBJECTS} needed"
    se = float(array.std(ddof=1) / np.sqrt(len(array)))
    if se <= 1e-9:
        return "all subjects have the same value: no standard error"
    return Study(name, float(array.mean()), se, len(array), groups or {})


def share_study(
    name: str, right: float, total: int, groups: Mapping[str, str] | None = None
) -> Study | str:
    """Make a study of a share, on the logit scale.

    Parameters
    ----------
    name : str
        Of the site.
    right : float
        Number of people judged right; a person of several scans may count in part.
    total : int
        Number of people.
    groups : mapping of str to str, optional
        As for `Study`.

    Returns
    -------
    Study or str
        Effect: ln(right / wrong); se: √(1 / right + 1 / wrong). Where one of them is 0,
        `CORRECTION` is added to both: a logit needs it, and the share is then not the one
        observed. Why there is none, without a person.
    """
    if total < 1:
        return "no subjects"
    wrong = total - right
    if min(right, wrong) < 1e-9:
        right, wrong = right + CORRECTION, wrong + CORRECTION
    effect, se = np.log(right / wrong), np.sqrt(1 / right + 1 / wrong)
    return Study(name, float(effect), float(se), total, groups or {})


def rounded(value: float, digits: int = 2) -> str:
    """Round a half up, and take for a half what is one up to the ninth decimal.

    Examples
    --------
    >>> rounded(62.625), rounded(66.695), f"{66.695:.2f}"
    ('62.63', '66.70', '66.69')
    """
    unit = Decimal(1).scaleb(-digits)
    return str(Decimal(str(round(value, 9))).quantize(unit, ROUND_HALF_UP))
