"""Losses against hand-computed values and MONAI; samples without labels."""

from __future__ import annotations

import math

import pytest
import torch

from msnmo_bids.model.config import LossConfig
from msnmo_bids.model.losses import (
    JointLoss,
    classification_loss,
    segmentation_loss,
)
from msnmo_bids.model.segmentation import JointOutput

BIG = 100.0


def logits_of(probability):
    return torch.tensor(probability).logit()


def flat_output(batch=2, seg=0.0, features=(0.0, 0.0, 0.0), weight=None):
    """Return constant maps of an 8x8x8 volume: S_i = seg, F_i = features[i], one channel each."""
    return JointOutput(
        lesion_logits=torch.zeros(batch, 1, 8, 8, 8, requires_grad=True),
        scale_logits=tuple(torch.full((batch, 1, side, side, side), seg) for side in (1, 2, 4, 8)),
        class_logits=torch.zeros(batch, 2, requires_grad=True),
        class_features=tuple(
            torch.full((batch, 1, side, side, side), value)
            for side, value in zip((4, 2, 1), features, strict=True)
        ),
        class_weight=torch.ones(2, 3) if weight is None else weight,
    )


def lesion_mask(batch=2):
    mask = torch.zeros(batch, 1, 8, 8, 8)
    mask[:, :, 2:6, 2:6, 2:6] = 1
    return mask


def test_dice_by_hand():
    logits = logits_of([[0.5, 0.5, 0.0001, 0.9999]]).reshape(1, 1, 1, 1, 4)
    mask = torch.tensor([1.0, 0.0, 0.0, 1.0]).reshape(1, 1, 1, 1, 4)
    expected = 1 - 2 * (0.5 + 0.9999) / (2.0 + 2.0)
    assert segmentation_loss(logits, mask, LossConfig()).item() == pytest.approx(expected, abs=1e-4)


def test_dice_equals_monai_and_is_averaged_over_samples():
    from monai.losses import DiceCELoss, DiceLoss

    logits, mask = torch.randn(3, 1, 4, 4, 4), (torch.rand(3, 1, 4, 4, 4) > 0.7).float()
    theirs = DiceLoss(sigmoid=True, smooth_nr=1e-5, smooth_dr=1e-5)(logits, mask)
    torch.testing.assert_close(segmentation_loss(logits, mask, LossConfig()), theirs)
    both = DiceCELoss(sigmoid=True, smooth_nr=1e-5, smooth_dr=1e-5)(logits, mask)
    torch.testing.assert_close(segmentation_loss(logits, mask, LossConfig(bce_weight=1.0)), both)


def test_dice_of_a_perfect_segmentation_is_zero():
    mask = lesion_mask()
    assert segmentation_loss((mask * 2 - 1) * BIG, mask, LossConfig()).item() < 1e-5


def test_dice_of_an_empty_mask_is_zero_for_an_empty_segmentation():
    mask = torch.zeros(1, 1, 8, 8, 8)
    assert segmentation_loss(torch.full_like(mask, -BIG), mask, LossConfig()).item() < 1e-5
    assert segmentation_loss(torch.zeros_like(mask), mask, LossConfig()).item() > 0.99


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])
    labels = torch.tensor([1, 0])
    expected = (-math.log(0.75) - math.log(0.5)) / 2
    assert classification_loss(logits, labels).item() == pytest.approx(expected)


def test_cross_loss_by_hand():
    # V_i = F_i * w_i^c, fine to coarse; S_i = 1 everywhere.
    weight = torch.tensor([[9.0, 9.0, 9.0], [1.0, 2.0, 3.0]])
    output = flat_output(seg=1.0, features=(1.0, 1.0, -1.0), weight=weight)
    terms = JointLoss()(output, lesion_mask(), torch.tensor([1, 1]))
    one, two, three = torch.tensor([1.0, 2.0, -3.0]).sigmoid()
    expected = 0.25 * (one - three) ** 2 + 0.25 * (one - two) ** 2 + 0.5 * (one - one) ** 2
    torch.testing.assert_close(terms.cross, expected)


def test_cross_loss_uses_the_true_class():
    weight = torch.tensor([[0.0, 0.0, 0.0], [5.0, 5.0, 5.0]])
    output = flat_output(seg=0.0, features=(1.0, 1.0, 1.0), weight=weight)
    loss = JointLoss()
    assert loss(output, lesion_mask(), torch.tensor([0, 0])).cross.item() == 0
    assert loss(output, lesion_mask(), torch.tensor([1, 1])).cross.item() > 0.2


def test_empty_masks_are_left_out_of_the_cross_loss():
    output = flat_output(seg=1.0, features=(1.0, 2.0, 3.0))
    labels, mask = torch.tensor([0, 1]), lesion_mask()
    output.scale_logits[0][1] = 50.0
    both = JointLoss()(output, mask, labels).cross
    mask[1] = 0
    first = JointLoss()(output, mask, labels).cross
    single = JointOutput(
        output.lesion_logits[:1],
        tuple(scale[:1] for scale in output.scale_logits),
        output.class_logits[:1],
        tuple(scale[:1] for scale in output.class_features),
        output.class_weight,
    )
    torch.testing.assert_close(first, JointLoss()(single, mask[:1], labels[:1]).cross)
    assert not torch.isclose(first, both)
    mask[0] = 0
    assert JointLoss()(output, mask, labels).cross.item() == 0


def test_total_is_equation_14():
    output = flat_output(seg=1.0, features=(1.0, 2.0, 3.0))
    config = LossConfig(segmentation_weight=2.0, classification_weight=3.0, cross_weight=5.0)
    terms = JointLoss(config)(output, lesion_mask(), torch.tensor([0, 1]))
    expected = 2 * terms.segmentation + 3 * terms.classification + 5 * terms.cross
    torch.testing.assert_close(terms.total, expected)
    assert terms.to_floats()["classification"] == pytest.approx(math.log(2))
    paper = JointLoss()(output, lesion_mask(), torch.tensor([0, 1]))
    expected = paper.segmentation + 0.8 * paper.classification + paper.cross
    torch.testing.assert_close(paper.total, expected)


def test_samples_without_labels_do_not_count():
    output = flat_output(seg=1.0)
    with torch.no_grad():
        output.class_logits[1] = torch.tensor([BIG, -BIG])
        output.lesion_logits[0] = BIG
    mask, labels = lesion_mask(), torch.tensor([0, -1])
    terms = JointLoss()(
        output,
        mask,
        labels,
        has_mask=torch.tensor([False, True]),
        has_diagnosis=torch.tensor([True, False]),
    )
    assert terms.classification.item() == pytest.approx(math.log(2))
    expected = segmentation_loss(output.lesion_logits[1:], mask[1:], LossConfig())
    torch.testing.assert_close(terms.segmentation, expected)
    assert terms.cross.item() == 0


def test_a_batch_without_labels_can_be_stepped():
    output = flat_output()
    terms = JointLoss()(output, None, None)
    terms.total.backward()
    assert terms.total.item() == 0
    assert output.lesion_logits.grad.abs().sum() == 0


def test_an_output_without_tasks_is_refused():
    with pytest.raises(ValueError, match="neither"):
        JointLoss()(JointOutput(), lesion_mask(), torch.tensor([0, 1]))


def test_cross_loss_teaches_both_subnetworks():
    output = flat_output(seg=0.5, features=(1.0, 2.0, 3.0))
    tensors = [*output.scale_logits[:3], *output.class_features, output.class_weight]
    for tensor in tensors:
        tensor.requires_grad_()
    JointLoss()(output, lesion_mask(), torch.tensor([0, 1])).cross.backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in tensors)


def test_dice_over_the_batch_counts_what_is_marked_in_a_sample_without_lesions():
    mask = torch.zeros(2, 1, 8, 8, 8)
    mask[0, :, 2:6, 2:6, 2:6] = 1
    logits = torch.where(mask > 0, 20.0, -20.0)
    config = LossConfig(batch_dice=True, dice_smoothing=1.0)
    assert segmentation_loss(logits, mask, config) == pytest.approx(0.0, abs=1e-5)
    logits[1, :, :4, :4, :4] = 20.0  # as much again, where nothing is
    expected = 1 - (2 * 64 + 1) / (64 + 128 + 1)
    assert segmentation_loss(logits, mask, config) == pytest.approx(expected, abs=1e-5)
