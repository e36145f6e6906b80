"""Configurations: round trips, and refusals in words."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msnmo_bids.model.config import CHOICES, JointConfig, LossConfig


def test_defaults_are_the_papers():
    config = JointConfig()
    assert config.classes == ("MS", "NMOSD")
    assert (config.embedding_channels, config.attention_heads, config.window_size) == (32, 4, 5)
    assert config.segmentation_channels == (32, 64, 128)
    assert config.decoder_channels == (64, 32, 16)
    assert config.classification_channels == (64, 128, 256)
    assert config.scale_weights == (0.25, 0.25, 0.5, 1.0)
    assert config.crossover_segmentation == (0.7, 0.3)
    assert config.crossover_classification == (0.3, 0.7)
    loss = LossConfig()
    weights = loss.segmentation_weight, loss.classification_weight, loss.cross_weight
    assert weights == (1.0, 0.8, 1.0)
    assert loss.cross_scale_weights == (0.25, 0.25, 0.5)


@settings(deadline=None, max_examples=50)
@given(
    sharing=st.sampled_from(CHOICES["sharing"]),
    guidance=st.sampled_from(CHOICES["guidance"]),
    gate=st.sampled_from(CHOICES["guidance_gate"]),
    detach=st.booleans(),
    classes=st.lists(
        st.sampled_from(("MS", "NMOSD", "MOGAD", "HC")), min_size=2, max_size=4, unique=True
    ),
    window=st.integers(1, 9),
)
def test_round_trip_through_json(sharing, guidance, gate, detach, classes, window):
    config = JointConfig(
        sharing=sharing,
        guidance=guidance,
        guidance_gate=gate,
        guidance_detach=detach,
        classes=tuple(classes),
        window_size=window,
    )
    again = JointConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)


def test_loss_round_trip():
    config = LossConfig(class_weights=(1.0, 2.0), bce_weight=0.5)
    assert LossConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_missing_settings_keep_their_defaults():
    assert JointConfig.from_dict({"window_size": 4}) == JointConfig(window_size=4)


@pytest.mark.parametrize("kind", [JointConfig, LossConfig])
def test_unknown_settings_are_named(kind):
    with pytest.raises(ValueError, match="unknown settings: heads, windows"):
        kind.from_dict({"windows": 5, "heads": 4})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ()}, "tasks must be"),
        ({"tasks": ("detection",)}, "tasks must be"),
        ({"tasks": ("segmentation", "segmentation")}, "tasks must be"),
        ({"classes": ("MS",)}, "two or more different"),
        ({"classes": ("MS", "MS")}, "two or more different"),
        ({"tasks": ("classification",)}, "guidance='none'"),
        ({"tasks": ("classification",), "guidance": "none", "pooling": "lesion"}, "pooling"),
        ({"sharing": "some"}, "sharing must be one of both"),
        ({"guidance": "multiply"}, "guidance must be one of"),
        ({"guidance_gate": "beta"}, "guidance_gate must be"),
        ({"guidance_attention": "tanh"}, "guidance_attention must be"),
        ({"guidance_start": "zero"}, "guidance_start must be"),
        ({"crossover": "vector"}, "crossover must be"),
        ({"pooling": "max"}, "pooling must be"),
        ({"local_activation": "tanh"}, "local_activation must be"),
        ({"segmentation_normalization": "weight"}, "segmentation_normalization must be"),
        ({"classification_normalization": "instance"}, "use 'group'"),
        ({"group_size": 1}, "instance normalisation"),
        ({"group_size": 48}, "groups of group_size=48"),
        ({"decoder_channels": (64, 32)}, "decoder_channels needs 3 values, not 2"),
        ({"scale_weights": (1.0, 1.0)}, "scale_weights needs 4 values"),
        ({"scale_weights": (1.0, 1.0, 1.0, 0.0)}, "full resolution"),
        ({"crossover_segmentation": (0.3, 0.7)}, "ties f_seg"),
        ({"embedding_channels": 30}, "cannot be divided among attention_heads=4"),
        ({"window_size": 0}, "window_size must be above 0"),
        ({"segmentation_channels": (0, 1, 1)}, "channels must be above 0"),
        ({"lesion_prior": 1.0}, "lesion_prior must be between"),
    ],
)
def test_contradictions_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        JointConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cross_weight": -1.0}, "cross_weight must be 0 or above"),
        ({"cross_activation": "softmax"}, "cross_activation must be"),
        ({"cross_scale_weights": (1.0,)}, "needs 3 values"),
        ({"dice_smoothing": 0.0}, "dice_smoothing must be above 0"),
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
    ],
)
def test_wrong_losses_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LossConfig(**settings)


def test_single_task_may_start_both_pairs_equal():
    config = JointConfig(tasks=("segmentation",), crossover_classification=(0.7, 0.3))
    assert config.segments
    assert not config.needs_lesions


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [("config, registry, weights, device, inference", "torch"), ("joint, losses, cam", "monai")],
)
def test_imports_are_light(modules, heavy):
    code = f"import sys; from msnmo_bids.model import {modules}; print({heavy!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
