"""Losses of the joint model: Dice (Eq. 13), cross entropy (12), cross-task (11), their sum (14)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from msnmo_bids.model.cam import class_activation_maps
from msnmo_bids.model.config import LossConfig
from msnmo_bids.model.segmentation import JointOutput

#: eta of Eq. 11, coarse to fine: at 1/8, 1/4 and 1/2 of the input's sides.
CROSS_WEIGHTS = (0.25, 0.25, 0.5)


class LabelCounts(NamedTuple):
    """How many samples each term of the loss is a mean over; or the share of them in a part."""

    masks: float
    classes: float
    cross: float

    def share_of(self, whole: LabelCounts) -> LabelCounts:
        """Return each count over that of a whole; 0 where the whole has none.

        Examples
        --------
        >>> LabelCounts(1, 0, 0).share_of(LabelCounts(4, 1, 0))
        LabelCounts(masks=0.25, classes=0.0, cross=0.0)
        """
        pairs = zip(self, whole, strict=True)
        return LabelCounts(*(part / total if total else 0.0 for part, total in pairs))


@dataclass(frozen=True)
class LossTerms:
    """The overall loss (Eq. 14) and its parts (Eq. 13, 12, 11), unweighted scalars.

    A part that no sample can give is 0; the total carries the gradient even where all parts are 0.
    """

    total: Tensor
    segmentation: Tensor
    classification: Tensor
    cross: Tensor

    def to_floats(self) -> dict[str, float]:
        """Return the four numbers by name, for a log."""
        return {name: float(value.detach()) for name, value in vars(self).items()}


class JointLoss(nn.Module):
    """L = 1 L_seg + 0.8 L_cls + 1 L_cross (Eq. 14) of a batch, part of which may lack labels."""

    def __init__(self, config: LossConfig | None = None) -> None:
        super().__init__()
        self.config = config or LossConfig()

    def forward(
        self,
        output: JointOutput,
        mask: Tensor | None = None,
        diagnosis: Tensor | None = None,
        has_mask: Tensor | None = None,
        has_diagnosis: Tensor | None = None,
        shares: LabelCounts | None = None,
    ) -> LossTerms:
        """Compare the output with the labels; a task that it lacks adds nothing.

        Parameters
        ----------
        mask : Tensor, optional
            Lesion mask, ``(B, 1, D, H, W)``, 0 or 1.
        diagnosis : Tensor, optional
            Label of the class, ``(B,)`` of int64; any value where there is none.
        has_mask, has_diagnosis : Tensor, optional
            ``(B,)`` of bool: the samples that have a mask, a diagnosis. Default: all that
            `mask`, `diagnosis` were given for.
        shares : LabelCounts, optional
            What this part of a larger batch has of its labels: the losses of all parts, and their
            gradients, then add up to those of the batch computed at once. Default: all of it.
        """
        config = self.config
        some = output.class_logits if output.lesion_logits is None else output.lesion_logits
        if some is None:
            raise ValueError("the output holds neither a segmentation nor a classification")
        masked = _known(mask, has_mask, some)
        diagnosed = _known(diagnosis, has_diagnosis, some)
        shares = shares or LabelCounts(1.0, 1.0, 1.0)
        # Attached to the graph, so that a batch without labels can be stepped like any other.
        segmentation = classification = cross = some.float().sum() * 0.0
        if output.lesion_logits is not None and mask is not None and masked.any():
            segmentation = segmentation + shares.masks * segmentation_loss(
                output.lesion_logits[masked], mask[masked], config
            )
        if output.class_logits is not None and diagnosis is not None and diagnosed.any():
            classification = classification + shares.classes * classification_loss(
                output.class_logits[diagnosed], diagnosis[diagnosed]
            )
        if mask is not None and diagnosis is not None and config.cross_weight:
            kept = masked & diagnosed & _lesioned(mask)
            cross = cross + shares.cross * cross_task_loss(output, diagnosis, kept)
        total = (
            config.segmentation_weight * segmentation
            + config.classification_weight * classification
            + config.cross_weight * cross
        )
        return LossTerms(total, segmentation, classification, cross)

    @staticmethod
    def count(
        mask: Tensor, diagnosis: Tensor, has_mask: Tensor, has_diagnosis: Tensor
    ) -> LabelCounts:
        """Count the labels of a batch, as in `forward`, for the shares of its parts."""
        both = has_mask & has_diagnosis & _lesioned(mask)
        return LabelCounts(*(float(known.sum()) for known in (has_mask, has_diagnosis, both)))


def segmentation_loss(logits: Tensor, mask: Tensor, config: LossConfig) -> Tensor:
    """Return 1 - Dice (Eq. 13), averaged over the samples; with ``bce_weight`` the DiceCE.

    With ``batch_dice`` it is the Dice over the voxels of all samples. `logits` and `mask` are
    ``(B, 1, D, H, W)``.
    """
    from monai.losses import DiceLoss

    logits, mask = logits.float(), mask.float()
    smoothing = config.dice_smoothing
    dice = DiceLoss(sigmoid=True, smooth_nr=smoothing, smooth_dr=smoothing, batch=config.batch_dice)
    loss = dice(logits, mask)
    if config.bce_weight:
        loss = loss + config.bce_weight * F.binary_cross_entropy_with_logits(logits, mask)
    return loss


def classification_loss(logits: Tensor, diagnosis: Tensor) -> Tensor:
    """Return the cross entropy (Eq. 12) of ``(B, K)`` logits and ``(B,)`` labels."""
    return F.cross_entropy(logits.float(), diagnosis.long())


def cross_task_loss(output: JointOutput, diagnosis: Tensor, kept: Tensor) -> Tensor:
    """Return sum_i eta_i * mean((sigmoid S_i - sigmoid V_i)^2) over the kept samples (Eq. 11).

    S_i of 1/8, 1/4, 1/2 are the first three ``scale_logits``; V_i come from the first three
    ``class_features`` in the opposite order. `diagnosis`, ``(B,)``, is c, the true class; `kept`,
    ``(B,)`` of bool, are the samples with a diagnosis and a mask that is not empty. 0 if no sample
    is kept or a task is missing.
    """
    features, scales = output.class_features, output.scale_logits
    if features is None or scales is None or output.class_weight is None or not kept.any():
        return kept.new_zeros((), dtype=torch.float32)
    maps = class_activation_maps(
        [scale[kept] for scale in features], output.class_weight, diagnosis[kept].long()
    )
    terms = [
        eta * F.mse_loss(scale[kept].float().sigmoid(), location.float().sigmoid())
        for eta, scale, location in zip(CROSS_WEIGHTS, scales[:3], reversed(maps[:3]), strict=True)
    ]
    return torch.stack(terms).sum()


def _known(labels: Tensor | None, given: Tensor | None, some: Tensor) -> Tensor:
    """Which samples have a label: ``(B,)`` of bool."""
    if labels is None:
        return torch.zeros(len(some), dtype=torch.bool, device=some.device)
    if given is None:
        return torch.ones(len(some), dtype=torch.bool, device=some.device)
    return given.to(some.device, torch.bool)


def _lesioned(mask: Tensor) -> Tensor:
    """Which masks are not empty: ``(B,)`` of bool, for a mask of any type."""
    return mask.flatten(1).bool().any(dim=1)
