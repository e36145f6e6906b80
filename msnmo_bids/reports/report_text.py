"""The texts that stand in every report, whatever was found."""

from __future__ import annotations

from msnmo_bids.vocabulary import NO_REAL_NMOSD, NO_TREATMENT, RESEARCH_ONLY

#: Printed in every report and on the group's page.
ALWAYS = (
    f"{RESEARCH_ONLY} {NO_TREATMENT}",
    NO_REAL_NMOSD,
    "The pattern score considers only the classes of the weights. "
    "It does not replace AQP4 or MOG serology.",
    "MOGAD and normal variants are not modelled; vascular disease only where the scores have a "
    "class for it (SVD), which was simulated and is never named.",
    "Spinal cord and optic nerves were not assessed.",
    "Regions are assigned automatically; they do not show that diagnostic criteria are met.",
)

SCORE_MEANS = (
    "The score says which of the modelled patterns the lesions on the FLAIR resemble most. The "
    "scores add up to 1 whatever the cause is."
)
SCORE_MEANS_NOT = (
    "It is not the probability that this person has the disease: it takes no account of serology, "
    "history, spinal cord or optic nerves, nor of how common each disease is where the scan was "
    "taken. A high score does not rule out any other cause."
)
SMALL_MEANS = "small: under 14 mm³ (3 mm in diameter)"
