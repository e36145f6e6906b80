"""The joint model: shared features, lesion segmentation, lesion guidance, classification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from msnmo_bids.model.classification import DiseaseClassification, LesionBranch, LesionGuidance
from msnmo_bids.model.config import (
    CLASSIFICATION,
    INPUT_CHANNELS,
    SEGMENTATION,
    SIDE_MULTIPLE,
    TASKS,
    JointConfig,
)
from msnmo_bids.model.segmentation import JointOutput, LesionSegmentation
from msnmo_bids.model.sharing import (
    FeatureDensity,
    InformationSharing,
    SharedFeatures,
    feature_statistics,
)


class JointNetwork(nn.Module):
    """Joint segmentation and classification of a T2-FLAIR volume.

    For an image ``(B, 1, 160, 160, 160)``: f_seg and f_cls are ``(B, 32, 80, 80, 80)``, the lesion
    logits ``(B, 1, 160, 160, 160)``, the joint features J of the guidance module
    ``(B, 32, 80, 80, 80)``, the class logits ``(B, K)``. Sides are multiples of 16 and may differ.

    Examples
    --------
    >>> import torch
    >>> output = JointNetwork()(torch.zeros(1, 1, 32, 48, 32))
    >>> tuple(output.lesion_logits.shape), tuple(output.class_logits.shape)
    ((1, 1, 32, 48, 32), (1, 2))
    """

    def __init__(self, config: JointConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or JointConfig()
        self.sharing = InformationSharing(config)
        if config.segments:
            self.segmentation = LesionSegmentation(config)
        if config.classifies:
            self.guidance = LesionGuidance(config)
            self.classification = DiseaseClassification(config)
        if config.lesion_descriptors:
            self.lesion_branch = LesionBranch(config)
        if config.density:
            self.density = FeatureDensity(2 * config.shared_channels)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that the network was built for."""
        return self.config.tasks

    def forward_features(self, image: Tensor) -> SharedFeatures:
        """Map the image ``(B, 1, D, H, W)`` to f_seg and f_cls (Eq. 1-4)."""
        check_image(image)
        return self.sharing(image)

    def forward_statistics(self, features: SharedFeatures, image: Tensor) -> Tensor:
        """Summarise f_seg (without a segmentation f_cls): two numbers per channel."""
        maps = features.classification if features.segmentation is None else features.segmentation
        assert maps is not None, "the model has a task"
        return feature_statistics(maps, image)

    def forward_segmentation(self, features: SharedFeatures, image: Tensor) -> JointOutput:
        """Map f_seg and the image to the lesion logits and their scales (Eq. 5)."""
        if features.segmentation is None:
            raise ValueError("this model was built without the segmentation task")
        return self.segmentation(features.segmentation, image)

    def forward_classification(
        self, features: SharedFeatures, lesions: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Classify f_cls (Eq. 6-9): to the logits, ``(B, K)``, and F_i at 1/2, 1/4 and 1/8.

        Parameters
        ----------
        lesions : Tensor, optional
            Lesion probability P, ``(B, 1, D, H, W)``; not needed without guidance by lesions.

        Raises
        ------
        ValueError
            If the model does not classify, or needs `lesions`.
        """
        if features.classification is None:
            raise ValueError("this model was built without the classification task")
        guided = features.classification
        if self.config.needs_lesions:
            if lesions is None:
                raise ValueError(f"guidance={self.config.guidance!r} needs the lesion probability")
            guided = self.guidance(guided, lesions)
        maps = self.classification.forward_features(guided)
        return self.classification.forward_head(maps), maps

    def forward_lesions(self, descriptors: Tensor) -> tuple[Tensor, Tensor]:
        """Classify by the lesions made of M_lesion, a row of descriptors each, ``(N, D)``.

        No gradient reaches the segmentation: descriptors (:mod:`msnmo_bids.lesions.descriptors`)
        are made of labels, outside the network. The logits, ``(K,)``, are the sum of the
        contributions of the lesions, ``(N, K)``, and of the bias of the branch.

        Raises
        ------
        ValueError
            If the model has no such branch, or reads another number of descriptors.
        """
        wanted = self.config.lesion_descriptors
        if not wanted or descriptors.shape[1:] != (wanted,):
            shape = tuple(descriptors.shape)
            raise ValueError(f"{shape}: the lesion branch reads {wanted} columns")
        contributions = self.lesion_branch.contributions(descriptors)
        return contributions.sum(dim=0) + self.lesion_branch.bias, contributions

    def forward(self, image: Tensor, tasks: Sequence[str] | None = None) -> JointOutput:
        """Segment and classify; what was not computed is None.

        Parameters
        ----------
        image : Tensor
            ``(B, 1, D, H, W)``, z-scored FLAIR, sides multiples of 16.
        tasks : sequence of {"segmentation", "classification"}, optional
            What to compute; default: all that the model was built for. A classification guided
            by lesions computes the segmentation in any case.

        Raises
        ------
        ValueError
            If the image has a wrong shape, or the model lacks a task.
        """
        tasks = check_tasks(tasks, self.tasks)
        features = self.forward_features(image)
        classifies = CLASSIFICATION in tasks
        output = JointOutput()
        if SEGMENTATION in tasks or (classifies and self.config.needs_lesions):
            output = self.forward_segmentation(features, image)
        if classifies:
            logits, maps = self.forward_classification(features, output.lesion_probability)
            weight = self.classification.head.weight
            output = replace(output, class_logits=logits, class_features=maps, class_weight=weight)
        return output


def check_tasks(wanted: Sequence[str] | None, built: Sequence[str]) -> Sequence[str]:
    """Return the tasks to compute, by default all; ValueError if the network lacks one."""
    if wanted is None:
        return built
    if not wanted or set(wanted) - set(built):
        raise ValueError(
            f"tasks={tuple(wanted)}: this model was built for {', '.join(built)}; "
            f"tasks are {', '.join(TASKS)}"
        )
    return wanted


def check_image(image: Tensor, shortest: int = SIDE_MULTIPLE) -> None:
    """Refuse an image that is not ``(B, INPUT_CHANNELS, D, H, W)``, or has wrong sides.

    Raises
    ------
    ValueError
        With the shape of the image: a side is not a multiple of 16, or below `shortest` (voxels).
    """
    sides = image.shape[2:]
    wrong = any(side % SIDE_MULTIPLE or side < shortest for side in sides)
    if image.ndim != 5 or image.shape[1] != INPUT_CHANNELS or wrong:
        raise ValueError(
            f"the image must be (B, {INPUT_CHANNELS}, D, H, W) with sides that are multiples of "
            f"{SIDE_MULTIPLE} and at least {shortest}, not {tuple(image.shape)}"
        )
