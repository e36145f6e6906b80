"""Configuration of the joint model and of its losses; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

SEGMENTATION = "segmentation"
CLASSIFICATION = "classification"
TASKS = (SEGMENTATION, CLASSIFICATION)

INPUT_CHANNELS = 1
"""Channels of the input: the T2-FLAIR. Here a second image would come in."""

SIDE_MULTIPLE = 16
"""Sides of the input are multiples of this: the patch of 8 and the average pooling of 2."""

_PARTS = ("local", SEGMENTATION, CLASSIFICATION)
#: What the settings of a few values may be, and how many values those of several have.
CHOICES = {
    "sharing": ("both", "none", "local", "global"),
    "guidance": ("none", "dot", "concat", "add", "full"),
    "guidance_gate": ("alpha", "one_plus_alpha"),
    "guidance_attention": ("sigmoid", "softmax"),
    "guidance_start": ("random", "lesion"),
    "crossover": ("scalar", "channel"),
    "pooling": ("average", "lesion"),
    "cross_activation": ("sigmoid", "none"),
    **{f"{part}_normalization": ("instance", "group", "layer", "batch", "none") for part in _PARTS},
    **{f"{part}_activation": ("leaky_relu", "relu", "gelu", "silu") for part in _PARTS},
}
LENGTHS = {
    **dict.fromkeys(("crossover_segmentation", "crossover_classification"), 2),
    **dict.fromkeys(("segmentation_channels", "decoder_channels", "classification_channels"), 3),
    "scale_weights": 4,
    "cross_scale_weights": 3,
}

CHANNEL_MULTIPLE = 8
"""Scaled numbers of channels are multiples of this: attention heads and groups divide it."""


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
class Settings:
    """Settings by name: numbers, texts and tuples of them, checked by `CHOICES` and `LENGTHS`."""

    def __post_init__(self) -> None:
        for field in fields(self):  # lists, as JSON has them, to tuples: settings are hashable
            value = getattr(self, field.name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, field.name, value)
            choices, length = CHOICES.get(field.name), LENGTHS.get(field.name)
            if choices and value not in choices:
                raise ValueError(f"{field.name} must be one of {', '.join(choices)}, not {value!r}")
            if length and len(value) != length:
                raise ValueError(f"{field.name} needs {length} values, not {len(value)}: {value}")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON holds them (lists for tuples)."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Build from a mapping; settings that it lacks keep their defaults.

        Raises
        ------
        ValueError
            If a key is not a setting, or a value is wrong.
        """
        unknown = sorted(set(settings) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"{cls.__name__}: unknown settings: {', '.join(unknown)}")
        return cls(**settings)


@dataclass(frozen=True)
class Style:
    """Normalisation and activation after the convolutions of a subnetwork.

    Parameters
    ----------
    normalization : {"instance", "group", "layer", "batch", "none"}
        ``"layer"`` normalises a sample as a whole.
    activation : {"leaky_relu", "relu", "gelu", "silu"}
        After the normalisation.
    group_size : int
        Channels of a group; only ``"group"`` reads it.
    """

    normalization: str
    activation: str
    group_size: int


@dataclass(frozen=True)
class JointConfig(Settings):
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
        Channels of f_seg and f_cls.
    embedding_channels : int
        C_e, channels of a token in the global branch. Where it differs from `shared_channels`, a
        1x1x1 convolution brings it there.
    attention_heads, swin_blocks, window_size : int
        Heads, number of Swin blocks (every second one shifted) and side of the window (tokens).
    mlp_ratio : float
        Hidden width of the Swin blocks' perceptron over `embedding_channels`.
    local_normalization, local_activation : str
        After each convolution of the local branch.
    crossover : {"scalar", "channel"}
        Whether the four learnable weights of Eq. 4 are scalars or one per channel.
    crossover_segmentation, crossover_classification : tuple of float
        Initial weights (of the local branch, of the global branch) for f_seg and f_cls.
    segmentation_channels : tuple of int
        Channels of the contraction path at 1/2, 1/4 and 1/8 of the input's sides.
    decoder_channels : tuple of int
        Channels of the expansion path at 1/4, 1/2 and 1/1.
    scale_weights : tuple of float
        Weights of the multiscale binding, coarse to fine (Eq. 5).
    lesion_prior : float
        Lesion probability that the untrained network is biased to; 0.5 is no bias. Lesions fill
        about 1 % of the brain or less: starting there saves the Dice loss the many steps in which
        it only lowers the background.
    segmentation_normalization, segmentation_activation : str
        In the segmentation subnetwork.
    guidance : {"none", "dot", "concat", "add", "full"}
        Lesion guidance module (Eq. 7-9) and its variants of Table 8.
    guidance_gate : {"alpha", "one_plus_alpha"}
        D' = alpha * D (Eq. 8), or (1 + alpha) * D, which does not vanish without lesions.
    guidance_attention : {"sigmoid", "softmax"}
        Normalisation of the attention logits; the softmax runs over all voxels.
    guidance_detach : bool
        Keep gradients of the classification out of the segmentation subnetwork.
    guidance_start : {"random", "lesion"}
        Initial kernel of f_P: random, or one that starts with alpha near P.
    classification_channels : tuple of int
        Channels of the residual coding blocks at 1/2, 1/4 and 1/8.
    classification_normalization, classification_activation : str
        In the classification subnetwork.
    pooling : {"average", "lesion"}
        Global average pooling (Eq. 6), or pooling weighted by the lesion probability.
    pooling_floor : float
        Added to the lesion probability of every voxel when it weights the pooling, so that a scan
        without lesions is pooled evenly.
    lesion_descriptors : int
        Numbers that describe each lesion to a branch of the classification that reads the lesions
        one by one (:mod:`msnmo_bids.model.lesion_branch`), beside the convolutions or, without the
        task of classification, instead of them; 0, as in the paper: no such branch.
    lesion_width, lesion_fits : int
        Width of the branch's layers, and number of fits whose mean it is.
    group_size : int
        Channels that one group of a ``"group"`` normalisation holds.
    density : bool
        Keep a density of the shared features (:mod:`msnmo_bids.model.density`), fitted after the
        training.

    Raises
    ------
    ValueError
        If a value is unknown or two values contradict each other.

    Examples
    --------
    >>> JointConfig().classes
    ('MS', 'NMOSD')
    >>> JointConfig.from_dict({"window": 5})
    Traceback (most recent call last):
    ValueError: JointConfig: unknown settings: window
    """

    tasks: tuple[str, ...] = TASKS
    classes: tuple[str, ...] = ("MS", "NMOSD")

    sharing: str = "both"
    shared_channels: int = 32
    embedding_channels: int = 32
    attention_heads: int = 4
    swin_blocks: int = 2
    window_size: int = 5
    mlp_ratio: float = 4.0
    local_normalization: str = "instance"
    local_activation: str = "leaky_relu"
    crossover: str = "scalar"
    crossover_segmentation: tuple[float, ...] = (0.7, 0.3)
    crossover_classification: tuple[float, ...] = (0.3, 0.7)

    segmentation_channels: tuple[int, ...] = (32, 64, 128)
    decoder_channels: tuple[int, ...] = (64, 32, 16)
    scale_weights: tuple[float, ...] = (0.25, 0.25, 0.5, 1.0)
    lesion_prior: float = 0.01
    segmentation_normalization: str = "instance"
    segmentation_activation: str = "leaky_relu"

    guidance: str = "full"
    guidance_gate: str = "alpha"
    guidance_attention: str = "sigmoid"
    guidance_detach: bool = False
    guidance_start: str = "random"

    classification_channels: tuple[int, ...] = (64, 128, 256)
    classification_normalization: str = "group"
    classification_activation: str = "leaky_relu"
    pooling: str = "average"
    pooling_floor: float = 1e-3
    lesion_descriptors: int = 0
    lesion_width: int = 64
    lesion_fits: int = 1
    group_size: int = 8
    density: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_tasks()
        self._check_contradictions()
        self._check_widths()

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
        return self.classifies and (self.guidance != "none" or self.pooling == "lesion")

    def style(self, part: str) -> Style:
        """Return the style of a part: ``"local"``, ``"segmentation"`` or ``"classification"``."""
        normalization = getattr(self, f"{part}_normalization")
        return Style(normalization, getattr(self, f"{part}_activation"), self.group_size)

    def scaled(self, width: float) -> JointConfig:
        """Return the same architecture with `width` times the channels (`scale_channels`)."""
        single = ("shared_channels", "embedding_channels")
        paths = ("segmentation_channels", "decoder_channels", "classification_channels")
        changes: dict[str, Any] = {
            name: scale_channels(getattr(self, name), width) for name in single
        }
        for name in paths:
            changes[name] = tuple(scale_channels(count, width) for count in getattr(self, name))
        return replace(self, **changes)

    def _check_tasks(self) -> None:
        if not self.tasks or set(self.tasks) - set(TASKS) or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must be one or both of {', '.join(TASKS)}, not {self.tasks}")
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes needs two or more different names, not {self.classes}")
        if self.needs_lesions and not self.segments:
            raise ValueError(
                f"guidance={self.guidance!r} with pooling={self.pooling!r} reads the lesion "
                "probability, which a model without the segmentation task lacks: set "
                "guidance='none' and pooling='average', or add the task"
            )

    def _check_contradictions(self) -> None:
        if self.classification_normalization == "instance":
            raise ValueError(
                "classification_normalization='instance' sets the mean of every feature map, so "
                "that its average pooling tells nothing of the scan: use 'group'"
            )
        if self.crossover_segmentation == self.crossover_classification and len(self.tasks) == 2:
            raise ValueError(
                "crossover_segmentation and crossover_classification are equal, which ties f_seg "
                "to f_cls: start each task on its own branch, for example (0.7, 0.3), (0.3, 0.7)"
            )

    def _check_widths(self) -> None:
        counts = ("shared_channels", "embedding_channels", "attention_heads", "swin_blocks")
        lesions = ("lesion_width", "lesion_fits")
        for name in (*counts, *lesions, "window_size", "group_size", "mlp_ratio", "pooling_floor"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.lesion_descriptors < 0:
            raise ValueError(f"lesion_descriptors must be 0 or above: {self.lesion_descriptors}")
        widths = (*self.segmentation_channels, *self.decoder_channels)
        if min((*widths, *self.classification_channels)) < 1:
            raise ValueError("every number of channels must be above 0")
        if self.embedding_channels % self.attention_heads:
            raise ValueError(
                f"embedding_channels={self.embedding_channels} cannot be divided among "
                f"attention_heads={self.attention_heads}"
            )
        if min(self.scale_weights) < 0 or self.scale_weights[-1] == 0:
            raise ValueError(
                f"scale_weights must not be negative, and the last, of the full resolution, must "
                f"be above 0: {self.scale_weights}"
            )
        if not 0 < self.lesion_prior < 1:
            raise ValueError(f"lesion_prior must be between 0 and 1, not {self.lesion_prior}")
        self._check_groups("local", (self.shared_channels,))
        self._check_groups(SEGMENTATION, widths)
        self._check_groups(CLASSIFICATION, self.classification_channels)

    def _check_groups(self, part: str, widths: Iterable[int]) -> None:
        if getattr(self, f"{part}_normalization") != "group":
            return
        for width in widths:
            if width % self.group_size:
                raise ValueError(
                    f"{part}_normalization='group': {width} channels cannot be split into groups "
                    f"of group_size={self.group_size}"
                )
        if part == CLASSIFICATION and self.group_size == 1:
            raise ValueError("group_size=1 makes the group normalisation an instance normalisation")


@dataclass(frozen=True)
class LossConfig(Settings):
    """Losses of the joint model (Eq. 11-14); the defaults are the paper's.

    Parameters
    ----------
    segmentation_weight, classification_weight, cross_weight : float
        beta_1, beta_2, beta_3 of Eq. 14; 0 leaves a term out.
    dice_smoothing : float
        Added to numerator and denominator of the soft Dice (Eq. 13).
    bce_weight : float
        Weight of a voxel-wise binary cross entropy beside the Dice loss; above 0 is DiceCE.
    batch_dice : bool
        One Dice over the voxels of all samples that are computed together: what is marked in a
        sample without lesions then counts as in one with lesions, and a small lesion no more than
        its voxels. The losses of the parts of a batch do not add up to that of the batch.
    skip_empty_dice : bool
        Leave samples whose mask is empty out of the Dice loss (the cross entropy keeps them).
    cross_scale_weights : tuple of float
        eta of Eq. 11, coarse to fine: at 1/8, 1/4 and 1/2 of the input's sides.
    cross_activation : {"sigmoid", "none"}
        Applied to S_i and V_i before they are compared.
    class_weights : tuple of float or None
        Weight of each class in the cross entropy (Eq. 12).
    label_smoothing : float
        Of the classes in Eq. 12.

    Raises
    ------
    ValueError
        If a value is unknown or out of range.
    """

    segmentation_weight: float = 1.0
    classification_weight: float = 0.8
    cross_weight: float = 1.0
    dice_smoothing: float = 1e-5
    bce_weight: float = 0.0
    batch_dice: bool = False
    skip_empty_dice: bool = False
    cross_scale_weights: tuple[float, ...] = (0.25, 0.25, 0.5)
    cross_activation: str = "sigmoid"
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("segmentation_weight", "classification_weight", "cross_weight", "bce_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or above, not {getattr(self, name)}")
        if self.batch_dice and self.skip_empty_dice:
            raise ValueError("batch_dice is over all samples: skip_empty_dice leaves some out")
        if self.dice_smoothing <= 0:
            raise ValueError("dice_smoothing must be above 0: an empty mask divides by it")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), not {self.label_smoothing}")

    @property
    def term_weights(self) -> dict[str, float]:
        """The betas of Eq. 14 by the names of the terms."""
        return {
            SEGMENTATION: self.segmentation_weight,
            CLASSIFICATION: self.classification_weight,
            "cross": self.cross_weight,
        }
