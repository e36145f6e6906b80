"""Losses of the joint model: Dice (Eq. 13), cross entropy (12), cross-task (11), their sum (14)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from msnmo_bids.model.cam import class_activation_maps
from msnmo_bids.model.config import LossConfig
from msnmo_bids.model.joint import JointOutput


@dataclass(frozen=True)
class LossTerms:
    """The overall loss and its parts, unweighted; a part that no sample can give is 0.

    Parameters
    ----------
    total : Tensor
        Scalar, Eq. 14; carries the gradient even where all parts are 0.
    segmentation, classification, cross : Tensor
        Scalars of Eq. 13, 12, 11.
    """

    total: Tensor
    segmentation: Tensor
    classification: Tensor
    cross: Tensor

    def to_floats(self) -> dict[str, float]:
        """Return the four numbers by name, for a log."""
        return {name: float(value.detach()) for name, value in vars(self).items()}


class JointLoss(nn.Module):
    """L = 1 L_seg + 0.8 L_cls + 1 L_cross (Eq. 14) of a batch, part of which may lack labels.

    Parameters
    ----------
    config : LossConfig, optional
        Default: the paper's losses.
    """

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
    ) -> LossTerms:
        """Compare the output with the labels.

        Parameters
        ----------
        output : JointOutput
            Of the network; a task that it lacks adds nothing.
        mask : Tensor, optional
            Lesion mask, ``(B, 1, D, H, W)``, 0 or 1.
        diagnosis : Tensor, optional
            Label of the class, ``(B,)`` of int64; any value where there is none.
        has_mask, has_diagnosis : Tensor, optional
            ``(B,)`` of bool: the samples that have a mask, a diagnosis. Default: all that
            `mask`, `diagnosis` were given for.

        Returns
        -------
        LossTerms
            The sum and its parts.
        """
        config = self.config
        some = output.class_logits if output.lesion_logits is None else output.lesion_logits
        if some is None:
            raise ValueError("the output holds neither a segmentation nor a classification")
        masked = _known(mask, has_mask, some)
        diagnosed = _known(diagnosis, has_diagnosis, some)
        # Attached to the graph, so that a batch without labels can be stepped like any other.
        segmentation = classification = cross = some.float().sum() * 0.0
        if output.lesion_logits is not None and mask is not None and masked.any():
            segmentation = segmentation + segmentation_loss(
                output.lesion_logits[masked], mask[masked], config
            )
        if output.class_logits is not None and diagnosis is not None and diagnosed.any():
            classification = classification + classification_loss(
                output.class_logits[diagnosed], diagnosis[diagnosed], config
            )
        if config.cross_weight and mask is not None and diagnosis is not None:
            lesioned = mask.flatten(1).any(dim=1)
            cross = cross + cross_task_loss(
                output, diagnosis, masked & diagnosed & lesioned, config
            )
        total = (
            config.segmentation_weight * segmentation
            + config.classification_weight * classification
            + config.cross_weight * cross
        )
        return LossTerms(total, segmentation, classification, cross)


def segmentation_loss(logits: Tensor, mask: Tensor, config: LossConfig) -> Tensor:
    """Return 1 - Dice (Eq. 13), averaged over the samples; with ``bce_weight`` the DiceCE.

    Parameters
    ----------
    logits, mask : Tensor
        ``(B, 1, D, H, W)``.
    config : LossConfig
        Smoothing, weight of the cross entropy, what to do with empty masks.

    Returns
    -------
    Tensor
        Scalar.
    """
    from monai.losses import DiceLoss

    logits, mask = logits.float(), mask.float()
    smoothing = config.dice_smoothing
    dice = DiceLoss(sigmoid=True, smooth_nr=smoothing, smooth_dr=smoothing, reduction="none")
    losses = dice(logits, mask).flatten()
    kept = mask.flatten(1).any(dim=1) if config.skip_empty_dice else torch.ones_like(losses).bool()
    loss = losses[kept].sum() / kept.sum().clamp(min=1)
    if config.bce_weight:
        loss = loss + config.bce_weight * F.binary_cross_entropy_with_logits(logits, mask)
    return loss


def classification_loss(logits: Tensor, diagnosis: Tensor, config: LossConfig) -> Tensor:
    """Return the cross entropy (Eq. 12) of ``(B, K)`` logits and ``(B,)`` labels."""
    weights = config.class_weights
    tensor = None if weights is None else logits.new_tensor(weights, dtype=torch.float32)
    return F.cross_entropy(
        logits.float(), diagnosis.long(), weight=tensor, label_smoothing=config.label_smoothing
    )


def cross_task_loss(
    output: JointOutput, diagnosis: Tensor, kept: Tensor, config: LossConfig
) -> Tensor:
    """Return sum_i eta_i * mean((S_i - V_i)^2) over the kept samples (Eq. 11).

    Parameters
    ----------
    output : JointOutput
        S_i of 1/8, 1/4, 1/2 are its first three ``scale_logits``; V_i come from its
        ``class_features`` in the opposite order.
    diagnosis : Tensor
        ``(B,)``: c, the true class.
    kept : Tensor
        ``(B,)`` of bool: samples with a diagnosis and a mask that is not empty.
    config : LossConfig
        eta and the activation of both maps.

    Returns
    -------
    Tensor
        Scalar; 0 if no sample is kept or a task is missing.
    """
    features, scales = output.class_features, output.scale_logits
    if features is None or scales is None or output.class_weight is None or not kept.any():
        return kept.new_zeros((), dtype=torch.float32)
    maps = class_activation_maps(
        [scale[kept] for scale in features], output.class_weight, diagnosis[kept].long()
    )
    squash = torch.sigmoid if config.cross_activation == "sigmoid" else nn.Identity()
    terms = [
        eta * F.mse_loss(squash(scale[kept].float()), squash(location.float()))
        for eta, scale, location in zip(
            config.cross_scale_weights, scales[:3], reversed(maps), strict=True
        )
    ]
    return torch.stack(terms).sum()


def _known(labels: Tensor | None, given: Tensor | None, some: Tensor) -> Tensor:
    """Which samples have a label: ``(B,)`` of bool."""
    if labels is None:
        return torch.zeros(len(some), dtype=torch.bool, device=some.device)
    if given is None:
        return torch.ones(len(some), dtype=torch.bool, device=some.device)
    return given.to(some.device, torch.bool)
