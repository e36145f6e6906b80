"""Configuration of the joint model and of its losses; imports nothing heavy."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from msnmo_bids.vocabulary import check_class_names

SEGMENTATION = "segmentation"
CLASSIFICATION = "classification"
TASKS = (SEGMENTATION, CLASSIFICATION)

INPUT_CHANNELS = 1
"""Channels of the input: the T2-FLAIR. Here a second image would come in."""

SIDE_MULTIPLE = 16
"""Sides of the input are multiples of this: the patch of 8 and the average pooling of 2."""

CHANNEL_MULTIPLE = 8
"""Scaled numbers of channels are multiples of this: attention heads and groups divide it."""

LESION_PRIOR = 0.01
"""Lesion probability that an untrained network is biased to. Lesions fill about 1 % of the brain or
less: starting there saves the Dice loss the many steps in which it only lowers the background."""

NORMALIZATIONS = ("instance", "batch")
CHOICES = {
    "sharing": ("both", "none", "local", "global"),
    "guidance": ("none", "dot", "concat", "add", "full"),
    "local_normalization": NORMALIZATIONS,
    "segmentation_normalization": NORMALIZATIONS,
}
_PATHS = ("segmentation_channels", "decoder_channels", "classification_channels")


def scale_channels(channels: int, width: float) -> int:
    """Return `width` times a number of channels, rounded to a multiple of 8, at least 8.

    Raises
    ------
    ValueError
        If the width is not above 0.

    Examples
    --------
    >>> [scale_channels(channels, 0.25) for channels in (16, 32, 256)]
    [8, 8, 64]
    """
    if width <= 0:
        raise ValueError(f"width must be above 0, not {width}")
    return max(CHANNEL_MULTIPLE, round(channels * width / CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE)


@dataclass(frozen=True)
class JointConfig:
    """Architecture of the joint model; the defaults are the paper's model.

    Every ablation of the paper is a value of this class (:mod:`msnmo_bids.model.registry`).

    Parameters
    ----------
    tasks : tuple of {"segmentation", "classification"}
        Subnetworks to build.
    classes : tuple of str
        Names of the diagnoses; the position is the label (0 = MS, 1 = NMOSD).
    sharing : {"both", "none", "local", "global"}
        Information-sharing subnetwork: both branches and the crossover unit; a plain local branch
        for each task; or one branch that both tasks use (hard parameter sharing).
    shared_channels : int
        Channels of f_seg and f_cls, a multiple of 8.
    embedding_channels : int
        C_e, channels of a token in the global branch, likewise. Where it differs from
        `shared_channels`, a 1x1x1 convolution brings it there.
    local_normalization, segmentation_normalization : {"instance", "batch"}
        After each convolution of the local branch, of the segmentation subnetwork.
    segmentation_channels : tuple of int
        Channels of the contraction path at 1/2, 1/4 and 1/8 of the input's sides.
    decoder_channels : tuple of int
        Channels of the expansion path at 1/4, 1/2 and 1/1.
    guidance : {"none", "dot", "concat", "add", "full"}
        Lesion guidance module (Eq. 7-9) and its variants of Table 8.
    classification_channels : tuple of int
        Channels of the residual coding blocks at 1/2, 1/4 and 1/8, multiples of 8.
    lesion_descriptors : int
        Numbers that describe each lesion to a branch of the classification that reads the lesions
        one by one (:class:`msnmo_bids.model.classification.LesionBranch`), beside the convolutions
        or, without the task of classification, instead of them; 0, as in the paper: no such branch.
    lesion_fits : int
        Number of fits whose mean that branch is.
    density : bool
        Keep a density of the shared features (:class:`msnmo_bids.model.sharing.FeatureDensity`),
        fitted after the training.

    Raises
    ------
    ValueError
        If a value is unknown or two values contradict each other.

    Examples
    --------
    >>> JointConfig().classes
    ('MS', 'NMOSD')
    """

    tasks: tuple[str, ...] = TASKS
    classes: tuple[str, ...] = ("MS", "NMOSD")
    sharing: str = "both"
    shared_channels: int = 32
    embedding_channels: int = 32
    local_normalization: str = "instance"
    segmentation_channels: tuple[int, ...] = (32, 64, 128)
    decoder_channels: tuple[int, ...] = (64, 32, 16)
    segmentation_normalization: str = "instance"
    guidance: str = "full"
    classification_channels: tuple[int, ...] = (64, 128, 256)
    lesion_descriptors: int = 0
    lesion_fits: int = 1
    density: bool = False

    def __post_init__(self) -> None:
        for name in ("tasks", "classes", *_PATHS):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        if not self.tasks or set(self.tasks) - set(TASKS) or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must be one or both of {', '.join(TASKS)}, not {self.tasks}")
        check_class_names(self.classes)
        if self.needs_lesions and not self.segments:
            raise ValueError(
                f"guidance={self.guidance!r} reads the lesion probability, which a model without "
                "the segmentation task lacks: set guidance='none', or add the task"
            )
        self._check_sizes()

    def _check_sizes(self) -> None:
        for name in _PATHS:
            widths = getattr(self, name)
            if len(widths) != 3 or min(widths) < 1:
                raise ValueError(f"{name} needs 3 numbers above 0, not {widths}")
        grouped = (self.shared_channels, self.embedding_channels, *self.classification_channels)
        if any(width < 1 or width % CHANNEL_MULTIPLE for width in grouped):
            raise ValueError(
                "shared_channels, embedding_channels and classification_channels must be multiples "
                f"of {CHANNEL_MULTIPLE}, not {grouped}"
            )
        if self.lesion_descriptors < 0 or self.lesion_fits < 1:
            raise ValueError("lesion_descriptors must be 0 or above, lesion_fits 1 or above")

    @property
    def segments(self) -> bool:
        """Whether the model has a segmentation subnetwork."""
        return SEGMENTATION in self.tasks

    @property
    def classifies(self) -> bool:
        """Whether the model has a classification subnetwork."""
        return CLASSIFICATION in self.tasks

    @property
    def needs_lesions(self) -> bool:
        """Whether the classification reads the lesion probability."""
        return self.classifies and self.guidance != "none"

    def scaled(self, width: float) -> JointConfig:
        """Return the same architecture with `width` times the channels (`scale_channels`)."""
        changes: dict[str, Any] = {
            name: tuple(scale_channels(count, width) for count in getattr(self, name))
            for name in _PATHS
        }
        for name in ("shared_channels", "embedding_channels"):
            changes[name] = scale_channels(getattr(self, name), width)
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON holds them (lists for tuples)."""
        return json.loads(json.dumps(asdict(self)))


@dataclass(frozen=True)
class LossConfig:
    """Losses of the joint model (Eq. 11-14); the defaults are the paper's.

    Parameters
    ----------
    segmentation_weight, classification_weight, cross_weight : float
        beta_1, beta_2, beta_3 of Eq. 14; 0 leaves a term out.
    dice_smoothing : float
        Added to numerator and denominator of the soft Dice (Eq. 13); above 0, as an empty mask
        divides by it.
    bce_weight : float
        Weight of a voxel-wise binary cross entropy beside the Dice loss; above 0 is DiceCE.
    batch_dice : bool
        One Dice over the voxels of all samples that are computed together: what is marked in a
        sample without lesions then counts as in one with lesions, and a small lesion no more than
        its voxels. The losses of the parts of a batch do not add up to that of the batch.
    """

    segmentation_weight: float = 1.0
    classification_weight: float = 0.8
    cross_weight: float = 1.0
    dice_smoothing: float = 1e-5
    bce_weight: float = 0.0
    batch_dice: bool = False

    @property
    def term_weights(self) -> dict[str, float]:
        """The betas of Eq. 14 by the names of the terms."""
        return {
            SEGMENTATION: self.segmentation_weight,
            CLASSIFICATION: self.classification_weight,
            "cross": self.cross_weight,
        }
