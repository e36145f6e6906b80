"""The one table of what is green, amber and red.

Red withholds the diagnosis: what the network says of such an image means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

GREEN, AMBER, RED = "green", "amber", "red"
#: From good to bad.
LEVELS = (GREEN, AMBER, RED)


@dataclass(frozen=True)
class Limit:
    """What is expected of a figure."""

    name: str  #: Key in the quality file.
    title: str  #: For readers.
    unit: str  #: Empty for ratios.
    #: Lowest and highest value that is not amber, and not red; None where there is no end.
    amber: tuple[float | None, float | None]
    red: tuple[float | None, float | None]
    why: str  #: Why the limit stands where it does.
    reason: str  #: What a red value means: the reason for withholding a diagnosis.
    digits: int = 2  #: Decimals to show.

    def level(self, value: float | None) -> str | None:
        """Return green, amber or red; None for a value that could not be measured.

        Examples
        --------
        >>> limit = Limit("x", "X", "mm", (None, 3), (None, 10), "", "")
        >>> [limit.level(value) for value in (3, 4, 11, None)]
        ['green', 'amber', 'red', None]
        """
        if value is None:
            return None
        if _outside(value, self.red):
            return RED
        return AMBER if _outside(value, self.amber) else GREEN


#: The one table of limits. "Here" are the 15 real FLAIR and 5 real T1w that were at hand.
LIMITS = (
    Limit("SliceThickness", "Largest voxel side", "mm", (None, 3.05), (None, 10.0),
          "Consensus protocols ask for at most 3 mm; trained for up to 8 mm",
          "the slices are too thick", 1),
    Limit("PixelSize", "Second largest voxel side", "mm", (None, 1.5), (None, 3.0),
          "Lesions of 3 mm need two voxels in the plane of the slices",
          "the pixels are too large", 2),
    Limit("Coverage", "Atlas brain within the image", "", (0.97, None), (0.93, None),
          "Real FLAIR here: 0.99 to 1.00",
          "a part of the brain is outside of the image", 2),
    Limit("CutArea", "Brain cut by an end of the image", "cm²", (None, 25.0), (None, 120.0),
          "The medulla's section has 5 to 10 cm²; real FLAIR here: up to 62 cm² at the vertex",
          "the image cuts through the brain", 0),
    Limit("FluidToWhite", "Ventricular fluid to white matter", "", (None, 0.72), (None, 0.85),
          "Fluid is dark on FLAIR; darkest tenth of the ventricles, real FLAIR here: 0.08 to 0.5",
          "fluid is not dark: this does not look like a FLAIR", 2),
    Limit("BrightFluid", "Brightest tenth of the ventricles to white matter", "",
          (None, 1.6), (None, 1.8),
          "Bright on T2w; real FLAIR here: up to 1.53 where lesions touch the ventricles",
          "fluid is bright: this looks like a T2w, not a FLAIR", 2),
    Limit("GreyToWhite", "Cortex to white matter", "", (0.95, 1.25), (0.92, 1.4),
          "Cortex is brighter than white matter on FLAIR (real here: 1.02 to 1.10) and darker on "
          "T1w (real here: 0.85 to 0.88)",
          "cortex is not brighter than white matter as on a FLAIR (a T1w?)", 2),
    Limit("BrainVolume", "Brain mask", "ml", (850.0, 1950.0), (600.0, 2400.0),
          "Adults' brains with ventricles have 1000 to 1800 ml",
          "the brain mask is too small or too large", 0),
    Limit("LoosePieces", "Mask outside of its largest piece", "", (None, 0.01), (None, 0.10),
          "A brain is in one piece",
          "the brain mask is in pieces", 3),
    Limit("WhiteVariationBefore", "Variation of white matter before bias correction", "",
          (None, 0.25), (None, 0.50),
          "Robust coefficient of variation; real FLAIR here: 0.09 to 0.15",
          "brightness varies too much over the image", 3),
    Limit("WhiteVariation", "Variation of white matter after bias correction", "",
          (None, 0.17), (None, 0.30),
          "Robust coefficient of variation; real FLAIR here: 0.08 to 0.14",
          "white matter is too uneven, by noise, motion or bias field", 3),
    Limit("BiasFieldDetail", "Detail in the removed bias field", "", (None, 0.055), (None, 0.065),
          "S.d. of its logarithm beyond a cubic polynomial; coils have smooth fields; real FLAIR "
          "here: 0.015 to 0.049, simulated masses, infarcts and motion that the correction took "
          "for a field: 0.07 to 0.09",
          "the bias correction found what is not a bias field (mass, infarct or motion)", 3),
    Limit("Noise", "Noise in white matter", "", (None, 0.09), (None, 0.16),
          "From second differences in the slice, of white matter; real FLAIR here: 0.03 to 0.06",
          "there is too much noise", 3),
    Limit("Sharpness", "Sharpness", "1/mm", (0.30, None), (0.05, None),
          "Steepest twentieth of the gradients in the slice, of white matter; real FLAIR here: 0.34"
          " to 0.44, the same with simulated motion of 2 mm and more: 0.25. Simulated thick slices "
          "have 0.10, so red lies below",
          "the image is blurred, as by motion"),
    Limit("Ghost", "Air beside the head to white matter", "", (None, 0.10), (None, 0.25),
          "Ghosts of motion fall into the air; not measured where the air was set to 0, as in all "
          "real FLAIR here: the limits rest on simulated motion",
          "ghosts as of motion lie beside the head", 3),
    Limit("OneSidedBright", "Bright tissue, one side more than the other", "ml",
          (None, 12.0), (None, 35.0),
          "Lesions of MS and NMOSD are on both sides; real FLAIR here: "
          "under 3 ml, simulated large lesions of NMOSD or MS up to 25 ml, a simulated mass 81 ml",
          "a large bright area is in one half of the brain (mass, infarct or a very large lesion)",
          1),
    Limit("OneSidedDark", "Dark areas, one side more than the other", "ml",
          (None, 15.0), (None, 30.0),
          "Cavities after an infarct or an operation; real FLAIR here: up to 11 ml",
          "a large dark area is in one half of the brain (old infarct, cyst or operation)", 1),
)  # fmt: skip


def _outside(value: float, ends: tuple[float | None, float | None]) -> bool:
    low, high = ends
    return (low is not None and value < low) or (high is not None and value > high)
