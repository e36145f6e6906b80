"""The names that results carry (regions, locations, changes, flags), what they mean, what holds.

Sidecars, reports and the group's tables take their texts from here; the names are also the keys
and the values in the derivatives.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

RESEARCH_ONLY = "Research use only. This is not a medical device."
NO_TREATMENT = "Do not use it for diagnosis or for decisions on treatment."
NO_REAL_NMOSD = (
    "The weights that come with msnmo learnt the diagnoses from simulated people only and have "
    "seen no real NMOSD scan."
)
#: In every diagnosis file and with the methods.
DISCLAIMER = (
    f"{RESEARCH_ONLY} {NO_TREATMENT} {NO_REAL_NMOSD} The scores do not replace AQP4 or MOG "
    "serology; spinal cord and optic nerves were not assessed."
)

#: Candidate regions of lesions, in the order in which a reader looks for them.
REGION_NAMES = {
    "periventricular": "Periventricular",
    "juxtacortical": "Juxtacortical or cortical",
    "infratentorial": "Infratentorial",
    "deep": "Deep white matter",
}
#: The same in the order in which the rule tries them, with what the rule asks for.
REGION_RULES = {
    "periventricular": "Touches a ventricle after dilation by one voxel",
    "infratentorial": "In the brainstem or the cerebellum",
    "juxtacortical": REGION_NAMES["juxtacortical"],
    "deep": REGION_NAMES["deep"],
}
#: Candidate locations at which lesions lie besides. Results file them under "sites"; in the code a
#: site is a hospital.
LOCATION_NAMES = {
    "corpus_callosum": "Corpus callosum",
    "periaqueductal_fourth_ventricle": "Around the aqueduct and the fourth ventricle",
    "area_postrema": "Area postrema",
    "hypothalamus_third_ventricle": "Hypothalamus, around the third ventricle",
    "corticospinal_tract": "Corticospinal tract",
}

#: What became of a lesion between two visits, in the order of the label image's values.
CHANGES = {
    "stable": "At both visits, and not changed by more than test-retest explains",
    "new": "At the later visit only (at most a tenth of it before)",
    "enlarging": "At both visits, larger at the later one",
    "shrinking": "At both visits, smaller at the later one",
    "vanished": "At the earlier visit only (at most a tenth of it is left)",
    "uncertain": "Found at one visit only, but it may be there at both (see the reason)",
}
#: Why a change is uncertain.
CHANGE_REASONS = {
    "small": "Smaller than the least volume of a change",
    "not_covered": "Not in the other visit's brain mask",
    "no_difference": "The images of the two visits hardly differ there",
}

#: Classes that weights may tell from the diseases so as not to name one; they are never named.
LOOK_ALIKES = {"SVD": "age-related small-vessel disease"}

#: What gives the scores of the classes.
LESION_BRANCH, CONVOLUTIONS = "lesion branch", "convolutions"

GREEN, AMBER, RED = "green", "amber", "red"
#: Of the quality of an image, from good to bad.
LEVELS = (GREEN, AMBER, RED)

QUALITY_RED, QUALITY_AMBER = "quality_red", "quality_amber"
NO_LESION = "no_lesion_found"
LOW_PROBABILITY = "no_class_is_probable_enough"
UNFAMILIAR = "unlike_the_training_scans"
SIMULATED_ONLY = "weights_simulated_only"
#: What a reader should know of a scan or of a comparison.
FLAGS = {
    QUALITY_RED: "The image's quality is red: no diagnosis is named.",
    QUALITY_AMBER: "The image's quality is amber: please check the quality table.",
    NO_LESION: "No lesion was found: there is no pattern to score.",
    LOW_PROBABILITY: "The scores do not suffice to name a disease: see the reason.",
    UNFAMILIAR: "The scan is unlike those that the network was trained on.",
    SIMULATED_ONLY: "The network's weights were trained on simulated scans only.",
    "thick_slices": "Thick slices: small lesions are missed, volumes are coarse, and outlines in "
    "the other two planes look like steps.",
    "partial_coverage": "The image does not cover the whole brain: lesions outside it are missing.",
    "implausible_brain_volume": "The brain mask's volume is unusual: check the brain mask.",
    "sheared_affine": "The header's axes are not at right angles: distances are approximate.",
    "voxel_sizes_differ": "The voxel sizes of the two visits differ: small lesions may be visible "
    "at one of them only.",
    "sform_invalid": "The header's sform is not valid; the qform was used.",
    "orientation_assumed": "The header has no valid orientation: the one of the command line was "
    "assumed. Left and right may be wrong, and masks fit only this image.",
    "trailing_bytes": "The file contains more data after the end of its image; they were not read.",
    "intensities_shifted": "The image's background was not 0 (a shifted or z-scored export): "
    "intensities were shifted until it was.",
    "nan_outside_head": "Voxels outside of the head were NaN or infinite: they count as "
    "background.",
    "hot_voxels": "A few voxels were far beyond all others; each was replaced by the median of its "
    "neighbours.",
    "skull_stripped_before": "The image came without a skull, so nothing was stripped. If that is "
    'wrong, name a tool (--skull-strip), or write "SkullStripped": false into the sidecar.',
    "voxel_sizes_contradict": "The header gives two different voxel sizes; those of its "
    "orientation were used. Check them: volumes depend on them.",
    "qform_differs_from_sform": "The header gives two different positions; the sform was used. "
    "Check that left and right are right.",
}


def flag_text(flag: str) -> str:
    """Return a sentence for a flag; an unknown flag is made readable.

    >>> flag_text("my_new_flag")
    'My new flag.'
    """
    return FLAGS.get(flag, f"{_readable(flag)}.")


def location_name(location: str) -> str:
    """Return a location's name for readers."""
    return LOCATION_NAMES.get(location, _readable(location))


def region_name(region: str) -> str:
    """Return a region's name for readers."""
    return REGION_NAMES.get(region, _readable(region))


def class_label(name: str) -> str:
    """Return a class's name as file names have it: letters and digits.

    >>> class_label("MS (relapsing)")
    'MSrelapsing'
    """
    return re.sub(r"[^0-9A-Za-z]", "", name)


def check_class_names(names: Sequence[str]) -> None:
    """Refuse names of classes of which no files can be named.

    Raises
    ------
    ValueError
        There are fewer than two, or two have the same :func:`class_label`, or one has none.
    """
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"classes needs two or more different names, not {', '.join(names)}")
    labels = [class_label(name) for name in names]
    if not all(labels) or len(set(labels)) < len(labels):
        raise ValueError(
            "classes must differ in their letters (A to Z) and digits, of which the names of files "
            f"are made: {', '.join(names)}"
        )


def _readable(name: str) -> str:
    return name.replace("_", " ").capitalize()
