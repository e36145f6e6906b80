"""Fixed and random effects, heterogeneity, subgroups, leave-one-out and Egger's test.

The arithmetic is that of statsmodels; the choices are those of the meta-analysis of Daqqaq et al.
(Neurosciences 2024, doi:10.17712/nsj.2024.2.20230103), which used RevMan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from msnmo_bids.evaluation.statistics import LEVEL, Interval

#: From this I² on, with p of Cochran's Q below `ALPHA`, the random-effects model is chosen.
I2_LIMIT = 0.5
ALPHA = 0.05
FIXED, RANDOM = "fixed", "random"
#: Egger's test has little power with fewer studies (Cochrane Handbook, chapter 13).
MIN_STUDIES_EGGER = 10
_EQUAL = 1e-6  # relative range of standard errors that count as equal


@dataclass(frozen=True)
class Study:
    """One study or site.

    Parameters
    ----------
    name : str
        Unique among the studies pooled.
    effect : float
        On the scale on which it is pooled.
    se : float
        Standard error of `effect`, on the same scale; above 0.
    subjects : int or None
        People in it; None when unknown.
    groups : mapping of str to str
        Value by subgroup column, such as ``{"country": "Italy"}``.
    """

    name: str
    effect: float
    se: float
    subjects: int | None = None
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def estimate(self) -> Estimate:
        """The effect with its interval."""
        return Estimate(self.effect, self.se)


@dataclass(frozen=True)
class Estimate:
    """An effect with its 95 % confidence interval.

    Parameters
    ----------
    effect, se : float
        On the scale on which it was pooled.
    """

    effect: float
    se: float

    @property
    def low(self) -> float:
        """Lower end, by the normal distribution."""
        return self.effect - self._half

    @property
    def high(self) -> float:
        """Upper end."""
        return self.effect + self._half

    @property
    def _half(self) -> float:
        from scipy.stats import norm

        return float(norm.isf((1 - LEVEL) / 2)) * self.se


@dataclass(frozen=True)
class Pooled:
    """What one pooling has found.

    Parameters
    ----------
    studies : int
        Number of studies, k.
    fixed, random : Estimate
        Inverse variance; DerSimonian and Laird (1986). Intervals by the normal distribution.
    q : float
        Cochran's Q; `df` = k - 1 degrees of freedom.
    p : float or None
        Of Q by the chi-squared distribution; None for one study.
    i2 : float or None
        Higgins' I², 0 to 1; None for one study.
    tau2 : float
        Variance between the studies by DerSimonian and Laird, not below 0.
    prediction : Interval
        Where the true effect of a new study is expected (95 %): t distribution with k - 2 degrees
        of freedom (Higgins et al. 2009). Without ends for fewer than three studies.
    weights_fixed, weights_random : tuple of float, (k,)
        Shares that add up to 1.
    """

    studies: int
    fixed: Estimate
    random: Estimate
    q: float
    p: float | None
    i2: float | None
    tau2: float
    prediction: Interval
    weights_fixed: tuple[float, ...]
    weights_random: tuple[float, ...]

    @property
    def df(self) -> int:
        """Degrees of freedom of Q."""
        return self.studies - 1

    @property
    def model(self) -> str:
        """The model by the paper's rule: random effects when I² >= 50 % and p < 0.05."""
        if self.i2 is None or self.p is None:
            return FIXED
        return RANDOM if self.i2 >= I2_LIMIT and self.p < ALPHA else FIXED

    @property
    def chosen(self) -> Estimate:
        """Estimate of the chosen model."""
        return self.random if self.model == RANDOM else self.fixed

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the chosen model."""
        return self.weights_random if self.model == RANDOM else self.weights_fixed


@dataclass(frozen=True)
class Subgroups:
    """The studies pooled by the values of one column.

    Parameters
    ----------
    column : str
        Its name.
    pooled : dict of str to Pooled
        By value, in the order of the studies.
    q, p : float
        Cochran's Q between the subgroups' fixed effects, and its p-value, as the paper has it.
    q_random, p_random : float or None
        The same between the random effects of the subgroups, each with its own tau²; None when one
        has a single study, and so no tau².
    """

    column: str
    pooled: dict[str, Pooled]
    q: float
    p: float
    q_random: float | None
    p_random: float | None

    @property
    def df(self) -> int:
        """Degrees of freedom of both."""
        return len(self.pooled) - 1

    @property
    def i2(self) -> float:
        """I² between the subgroups' fixed effects."""
        return _i2(self.q, self.df)


@dataclass(frozen=True)
class Egger:
    """Egger's regression test of a funnel plot's asymmetry, or why there is none.

    Parameters
    ----------
    intercept, p : float or None
        Of effect / se on 1 / se; two-sided t test with k - 2 degrees of freedom.
    reason : str
        Why they are None; empty otherwise.
    """

    intercept: float | None = None
    p: float | None = None
    reason: str = ""


def pool(studies: Sequence[Study]) -> Pooled:
    """Pool studies by inverse variance and by DerSimonian and Laird.

    Parameters
    ----------
    studies : sequence of Study
        At least one.

    Returns
    -------
    Pooled

    Raises
    ------
    ValueError
        Without a study, or with a standard error that is not above 0.
    """
    from scipy.stats import chi2
    from statsmodels.stats.meta_analysis import combine_effects

    if not studies:
        raise ValueError("there is no study to pool")
    effects = np.array([study.effect for study in studies])
    errors = np.array([study.se for study in studies])
    if not (errors > 0).all():
        raise ValueError("a standard error is not above 0")
    if len(studies) == 1:
        alone = studies[0].estimate
        none = Interval(reason="one study")
        return Pooled(1, alone, alone, 0.0, None, None, 0.0, none, (1.0,), (1.0,))
    # Around 0, for Q is a difference of two sums of squares.
    centre = float(effects.mean())
    with np.errstate(invalid="ignore"):  # roots of what a tau² below 0 makes negative
        found = combine_effects(effects - centre, errors**2, method_re="dl")
    q, df = max(float(found.q), 0.0), len(studies) - 1
    fixed = Estimate(float(found.mean_effect_fe) + centre, float(found.sd_eff_w_fe))
    tau2, random, weights = 0.0, fixed, found.weights_rel_fe
    if found.tau2 > 0:  # statsmodels' own can be below 0
        tau2 = float(found.tau2)
        random = Estimate(float(found.mean_effect_re) + centre, float(found.sd_eff_w_re))
        weights = found.weights_rel_re
    return Pooled(
        len(studies),
        fixed,
        random,
        q,
        float(chi2.sf(q, df)),
        _i2(q, df),
        tau2,
        _prediction(random, tau2, len(studies)),
        tuple(map(float, found.weights_rel_fe)),
        tuple(map(float, weights)),
    )


def leave_one_out(studies: Sequence[Study]) -> dict[str, Pooled]:
    """Pool all studies but one, for each of them.

    Parameters
    ----------
    studies : sequence of Study
        As for `pool`.

    Returns
    -------
    dict of str to Pooled
        By the name of the study left out; empty for one study.
    """
    if len(studies) < 2:
        return {}
    return {left.name: pool([study for study in studies if study is not left]) for left in studies}


def subgroups(studies: Sequence[Study], column: str) -> Subgroups | None:
    """Pool studies by the values of a column, and test whether these differ.

    Parameters
    ----------
    studies : sequence of Study
        As for `pool`; those without a value are left out.
    column : str
        Key of `Study.groups`.

    Returns
    -------
    Subgroups or None
        None for fewer than two values.
    """
    from scipy.stats import chi2

    values = dict.fromkeys(study.groups[column] for study in studies if study.groups.get(column))
    if len(values) < 2:
        return None
    found = {
        value: pool([study for study in studies if study.groups.get(column) == value])
        for value in values
    }
    q = pool([Study(name, own.fixed.effect, own.fixed.se) for name, own in found.items()]).q
    df = len(found) - 1
    between = Subgroups(column, found, q, float(chi2.sf(q, df)), None, None)
    if min(own.studies for own in found.values()) < 2:
        return between
    random = pool([Study(name, own.random.effect, own.random.se) for name, own in found.items()])
    return replace(between, q_random=random.q, p_random=random.p)


def egger(studies: Sequence[Study]) -> Egger:
    """Test a funnel plot's asymmetry (Egger et al. 1997).

    Parameters
    ----------
    studies : sequence of Study
        As for `pool`.

    Returns
    -------
    Egger
        Not estimable for fewer than three studies, and for equal standard errors: then precision
        and constant are the same column, and the design has rank one.
    """
    from statsmodels.regression.linear_model import OLS

    if len(studies) < 3:
        return Egger(reason="fewer than three studies")
    effects = np.array([study.effect for study in studies])
    errors = np.array([study.se for study in studies])
    if np.ptp(errors) <= _EQUAL * errors.mean():
        return Egger(reason="all standard errors are equal, the regression has rank one")
    precision = 1 / errors
    fitted = OLS(effects * precision, np.column_stack([np.ones_like(precision), precision])).fit()
    return Egger(float(fitted.params[0]), float(fitted.pvalues[0]))


def _prediction(random: Estimate, tau2: float, studies: int) -> Interval:
    from scipy.stats import t

    if studies < 3:
        return Interval(reason="fewer than three studies")
    half = float(t.isf((1 - LEVEL) / 2, studies - 2) * np.sqrt(tau2 + random.se**2))
    return Interval(random.effect - half, random.effect + half)


def _i2(q: float, df: int) -> float:
    return max(0.0, 1 - df / q) if q > 0 else 0.0
