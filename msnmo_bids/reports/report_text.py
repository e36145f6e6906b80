"""The texts that stand in every report, whatever was found."""

from __future__ import annotations

RESEARCH_ONLY = "Research use only. This is not a medical device."
NO_REAL_NMOSD = (
    "The classifier was trained and evaluated on simulated scans only; no real NMOSD scan was used."
)
#: Printed in every report and on the group's page.
ALWAYS = (
    f"{RESEARCH_ONLY} Do not use it for diagnosis or for decisions on treatment.",
    NO_REAL_NMOSD,
    "The pattern score knows no cause but the classes of the weights. "
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
CAM_MEANS = (
    "Where the network's features spoke for a class (pink) or against it (green), against the mean "
    "of the classes, in units of the logit: only the difference decides (the map files hold each "
    "class by itself). It shows what the network used, not what caused a lesion. It is computed on "
    "grids of about 2 to 9 mm, so a spot is blurred and can lie beside its lesion. Stronger values "
    "than the ends of the scale have their colours."
)
LESION_CAM_MEANS = (
    "What each lesion adds to the logit of a class (pink) or takes from it (green), against the "
    "mean of the classes: only the difference decides. All voxels of a lesion have its value, and "
    "the lesions and a constant add up to the logit. It shows what the network used, not what "
    "caused a lesion."
)
EVIDENCE_MEANS = (
    "In brackets: what the lesion adds to the margin between the two logits. Few lesions count "
    "less, so what a lesion adds depends on how many there are."
)
LESIONS_MEAN = (
    "Outlines follow the voxels' edges. Check that they are on hyperintense lesions, not on "
    "normal caps around the ventricles, flow artefacts or cortex."
)
BRAIN_MASK_MEANS = (
    "The outline should follow the brain's surface. Lesions outside of it are missed; "
    "skull or orbit inside it can be mistaken for a lesion."
)
BIAS_MEANS = (
    "The estimated field should be smooth and show no anatomy. "
    "Lesions should be as visible after the correction as before it."
)
REGIONS_MEAN = (
    "A lesion belongs to one region: periventricular if it touches a ventricle after growing by "
    "one voxel, else infratentorial, else juxtacortical or cortical, else deep white matter. It "
    "counts at a location, too, if at least 14 mm³ or half of it lies there; the volume of a "
    "location is the part that lies there."
)
SMALL_MEANS = "small: under 14 mm³ (3 mm in diameter)"
VISITS_MEAN = (
    "The difference of two rows is not a measure of change: slice thickness, position and contrast "
    "affect number and volume. Changes, lesion by lesion, are under “Between visits”."
)
CHANGES_MEAN = (
    "Consecutive visits were brought to the space half-way between them and their lesions matched. "
    "A lesion counts as changed only if its outline changed by more than the segmentation of an "
    "unchanged lesion varies, and if the images differ there; what was found at one visit only but "
    "may be there at both is called uncertain. Please confirm each change on the images. "
    "This is not a measure of disease activity that was validated in patients."
)
CHANGE_FIGURE_MEANS = (
    "The same section of both visits, and what became of each lesion: the one with most lesion, "
    "then those of the new, enlarging, vanished and shrinking lesions, the largest changes first."
)
NO_RATES = (
    "No annual rates: the data set has no dates of these visits that can be read (acq_time in "
    "scans.tsv or sessions.tsv), or they are less than 60 days apart."
)
ACCURACY_MEANS = (
    "What follows compares the model with the diagnoses that this data set states. It holds for "
    "this cohort and its scanners, not for other people; where site and diagnosis go together, "
    "a classifier can seem right by recognising the scanner. No real NMOSD scan was available to "
    "the developers: if this data set holds some, they are the first that the model has met."
)

QUALITY_MEANS = (
    "Red: the diagnosis is withheld. Amber: please check the image. The limits were set on 15 real "
    "FLAIR and 5 real T1w and on simulated faults; motion, masses and infarcts are not always "
    "recognised, so look at the images."
)

LOCATIONS_MEAN = (
    "◆ Typical of NMOSD in published cohorts, but lesions of MS and others lie there too. "
    "Locations are drawn in an atlas that was registered to the scan (affine), so they are "
    "approximate."
)
