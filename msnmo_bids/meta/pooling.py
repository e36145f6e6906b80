"""Fixed and random effects, heterogeneity, subgroups, leave-one-out and Egger's test.

The arithmetic is that of statsmodels; the choices are those of the meta-analysis of Daqqaq et al.
(Neurosciences 2024, doi:10.17712/nsj.2024.2.20230103), which used RevMan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from msnmo_bids.evaluation.measures import LEVEL
from msnmo_bids.meta.studies import Estimate, Studies

#: From this I², with p of Cochran's Q below `ALPHA`, the random-effects model is chosen.
I2_LIMIT = 0.5
ALPHA = 0.05
FIXED, RANDOM = "fixed", "random"
MODEL_NAMES = {FIXED: "Fixed effect", RANDOM: "Random effects"}
RULE = (f"random effects (DerSimonian and Laird) where I² is at least {100 * I2_LIMIT:.0f} % and "
        f"p < {ALPHA}, else a fixed effect")  # fmt: skip
_EQUAL = 1e-6  # relative range of standard errors that count as equal


@dataclass(frozen=True)
class Pooled:
    """What one pooling of k studies has found.

    Estimates and weights, (k,), shares that add up to 1, are by model: `FIXED` (inverse variance),
    `RANDOM` (DerSimonian and Laird 1986). Cochran's Q has k - 1 degrees of freedom, and its p is by
    the chi-squared distribution; I² is 0 to 1; p and I² are None for one study. tau² is the
    variance between the studies by DerSimonian and Laird, not below 0. The prediction says where
    the true effect of a new study is expected (95 %), by the t distribution with k - 2 degrees of
    freedom (Higgins et al. 2009); None for fewer than three studies.
    """

    studies: int
    estimates: dict[str, Estimate]
    weights: dict[str, np.ndarray]
    q: float
    df: int
    p: float | None
    i2: float | None
    tau2: float
    prediction: tuple[float, float] | None

    @property
    def model(self) -> str:
        """The model by the paper's rule: random effects when I² >= 50 % and p < 0.05."""
        return RANDOM if (self.i2 or 0) >= I2_LIMIT and (self.p or 0) < ALPHA else FIXED

    @property
    def chosen(self) -> Estimate:
        """Estimate of the chosen model."""
        return self.estimates[self.model]


@dataclass(frozen=True)
class Analysis:
    """Everything that is computed of one measure: all studies pooled, and what `egger` returns.

    ``without`` is by the study left out, and empty for one study; ``subgroups`` by column that has
    at least two values, and by value. ``between``, by column and model, has the subgroups'
    estimates pooled: its Q, p and I² are those between them. `RANDOM`, each subgroup with its own
    tau², lacks where one has a single study.
    """

    data: Studies
    pooled: Pooled
    without: dict[str, Pooled]
    subgroups: dict[str, dict[str, Pooled]]
    between: dict[str, dict[str, Pooled]]
    egger: tuple[float, float] | str


def analyse(data: Studies) -> Analysis:
    """Pool studies, of which at least one is not left out, in every way."""
    table = data.pooled
    without = {name: pool(table.drop(name)) for name in table.index if len(table) > 1}
    groups, between = {}, {}
    for column in data.columns:
        members = table[table[column] != ""].groupby(column, sort=False)
        if len(members) > 1:
            own = groups[column] = {str(value): pool(rows) for value, rows in members}
            models = MODEL_NAMES if members.size().min() > 1 else (FIXED,)
            estimates = {name: [group.estimates[name] for group in own.values()] for name in models}
            between[column] = {name: pool(pd.DataFrame(its)) for name, its in estimates.items()}
    return Analysis(data, pool(table), without, groups, between, egger(table))


def pool(table: pd.DataFrame) -> Pooled:
    """Pool the rows of a table, by its columns ``effect`` and ``se``.

    Raises
    ------
    ValueError
        Without a study, or with a standard error that is not above 0.
    """
    from scipy.stats import chi2, t
    from statsmodels.stats.meta_analysis import combine_effects

    effects, errors = table["effect"].to_numpy(), table["se"].to_numpy()
    k, df = len(table), len(table) - 1
    if not k or not (errors > 0).all():
        raise ValueError("there is no study, or a standard error that is not above 0")
    # Around 0, for Q is a difference of two sums of squares.
    centre = effects.mean()
    with np.errstate(all="ignore"):  # one study, equal effects, a tau² below 0
        found = combine_effects(effects - centre, errors**2, method_re="dl")
    q, tau2 = max(float(found.q), 0.0), 0.0
    fixed = random = Estimate(float(centre + found.mean_effect_fe), float(found.sd_eff_w_fe))
    weights = {FIXED: found.weights_rel_fe, RANDOM: found.weights_rel_fe}
    if df and found.tau2 > 0:  # statsmodels' own can be below 0
        tau2 = float(found.tau2)
        random = Estimate(float(centre + found.mean_effect_re), float(found.sd_eff_w_re))
        weights[RANDOM] = found.weights_rel_re
    prediction = None
    if k > 2:
        half = float(t.isf((1 - LEVEL) / 2, k - 2) * np.sqrt(tau2 + random.se**2))
        prediction = random.effect - half, random.effect + half
    p, i2 = (float(chi2.sf(q, df)), 1 - df / max(q, df)) if df else (None, None)
    return Pooled(k, {FIXED: fixed, RANDOM: random}, weights, q, df, p, i2, tau2, prediction)


def egger(table: pd.DataFrame) -> tuple[float, float] | str:
    """Test a funnel plot's asymmetry by regression (Egger et al. 1997).

    Returns
    -------
    (intercept, p) or str
        Of effect / se on 1 / se; two-sided t test with k - 2 degrees of freedom. Or why there is
        none: fewer than three studies, or equal standard errors (the design has rank one).
    """
    from statsmodels.regression.linear_model import OLS

    effects, errors = table["effect"].to_numpy(), table["se"].to_numpy()
    if len(table) < 3:
        return "fewer than three studies"
    if np.ptp(errors) <= _EQUAL * errors.mean():
        return "all standard errors are equal, the regression has rank one"
    fitted = OLS(effects / errors, np.column_stack([np.ones_like(errors), 1 / errors])).fit()
    return float(fitted.params[0]), float(fitted.pvalues[0])
