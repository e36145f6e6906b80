"""Configurations: round trips, and refusals in words."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msnmo_bids.model.config import CHOICES, JointConfig, LossConfig
from msnmo_bids.model.losses import CROSS_WEIGHTS
from msnmo_bids.model.segmentation import SCALE_WEIGHTS
from msnmo_bids.model.sharing import ATTENTION_HEADS, WINDOW_SIZE


def test_defaults_are_the_papers():
    config = JointConfig()
    assert config.classes == ("MS", "NMOSD")
    assert config.embedding_channels == 32
    assert config.segmentation_channels == (32, 64, 128)
    assert config.decoder_channels == (64, 32, 16)
    assert config.classification_channels == (64, 128, 256)
    loss = LossConfig()
    assert loss.term_weights == {"segmentation": 1.0, "classification": 0.8, "cross": 1.0}
    assert CROSS_WEIGHTS == (0.25, 0.25, 0.5)
    assert SCALE_WEIGHTS == (0.25, 0.25, 0.5, 1.0)
    assert (ATTENTION_HEADS, WINDOW_SIZE) == (4, 5)


@settings(deadline=None, max_examples=50)
@given(
    sharing=st.sampled_from(CHOICES["sharing"]),
    guidance=st.sampled_from(CHOICES["guidance"]),
    classes=st.lists(
        st.sampled_from(("MS", "NMOSD", "MOGAD", "HC")), min_size=2, max_size=4, unique=True
    ),
    density=st.booleans(),
)
def test_round_trip_through_json(sharing, guidance, classes, density):
    config = JointConfig(
        sharing=sharing, guidance=guidance, classes=tuple(classes), density=density
    )
    again = JointConfig(**json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ()}, "tasks must be"),
        ({"tasks": ("detection",)}, "tasks must be"),
        ({"tasks": ("segmentation", "segmentation")}, "tasks must be"),
        ({"classes": ("MS",)}, "two or more different"),
        ({"classes": ("MS", "MS")}, "two or more different"),
        ({"classes": ("MS+", "MS-")}, r"names of files .*MS\+, MS-"),
        ({"classes": ("MS", "多発性硬化症")}, "names of files"),
        ({"tasks": ("classification",)}, "guidance='none'"),
        ({"sharing": "some"}, "sharing must be one of both"),
        ({"guidance": "multiply"}, "guidance must be one of"),
        ({"segmentation_normalization": "weight"}, "segmentation_normalization must be"),
        ({"decoder_channels": (64, 32)}, "decoder_channels needs 3 numbers above 0"),
        ({"segmentation_channels": (0, 1, 1)}, "segmentation_channels needs 3 numbers above 0"),
        ({"embedding_channels": 30}, "must be multiples of 8"),
        ({"classification_channels": (8, 12, 16)}, "must be multiples of 8"),
        ({"lesion_descriptors": -1}, "lesion_descriptors must be"),
        ({"lesion_fits": 0}, "lesion_fits 1 or above"),
    ],
)
def test_contradictions_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        JointConfig(**settings)


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [("config, registry, weights, device, inference", "torch"), ("joint, losses, cam", "monai")],
)
def test_imports_are_light(modules, heavy):
    code = f"import sys; from msnmo_bids.model import {modules}; print({heavy!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
