"""Settings of a training: checks, files, flags."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields, replace
from typing import Any

import pytest

from msnmo_bids.errors import UsageError
from msnmo_bids.training.config import TrainingConfig, add_training_arguments


def parse(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_training_arguments(parser)
    return vars(parser.parse_args(words))


def test_defaults_are_those_of_the_paper():
    config = TrainingConfig()
    assert (config.learning_rate, config.batch_size, config.epochs) == (1e-4, 2, 200)
    assert (config.schedule, config.plateau_epochs, config.plateau_factor) == ("plateau", 10, 0.5)
    assert config.flip == config.rotation == 0.5
    assert config.intensity == 0


def test_every_field_is_documented_and_has_a_flag(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    for field in fields(TrainingConfig):
        assert field.metadata["help"], field.name
        assert f"--{field.name.replace('_', '-')}" in text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batchsize": 2}, "unknown training setting batchsize .did you mean batch_size"),
        ({"xyz": 2}, "unknown training setting xyz$"),
        ({"batch_size": 0}, "batch_size must be above 0"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"batch_size": "two"}, "batch_size must be a whole number"),
        ({"batch_size": True}, "batch_size must be a whole number"),
        ({"learning_rate": None}, "learning_rate must be a number"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number"),
        ({"channels_last": "no"}, "channels_last must be true or false"),
        ({"schedule": "step"}, "schedule must be of plateau, cosine, constant"),
        ({"schedule": 1}, "schedule must be a name"),
        ({"tasks": "segmentation"}, "tasks must be a list"),
        ({"tasks": ["segment"]}, "tasks must be of segmentation, classification"),
        ({"flip": 1.5}, "flip must be from 0 to 1"),
        ({"flip_axes": [3]}, "flip_axes must be some of"),
        ({"ema": 1.0}, "ema must be below 1"),
        ({"side": 40}, "side must be a multiple of 16"),
        ({"epochs": 0}, "steps or epochs"),
        ({"seed": -1}, "seed must be 0 or above"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        TrainingConfig.from_dict(settings)


def test_json_and_back():
    config = TrainingConfig(tasks=("segmentation",), flip_axes=(0, 1), side=32, frozen=("sharing",))
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_flags_stand_before_the_file_and_the_file_before_the_defaults(tmp_path):
    path = tmp_path / "training.yaml"
    path.write_text("learning_rate: 1e-3\nbatch_size: 4\nflip_axes: [0]\n")
    options = parse("--training-config", str(path), "--batch-size", "5", "--no-channels-last")
    config = TrainingConfig.from_flags(options)
    expected = TrainingConfig(learning_rate=1e-3, batch_size=5, flip_axes=(0,), channels_last=False)
    assert config == expected


def test_flags_of_tuples_and_choices(capsys):
    config = TrainingConfig.from_flags(
        parse("--tasks", "segmentation", "classification", "--flip-axes", "0", "2")
    )
    assert config.tasks == ("segmentation", "classification")
    assert config.flip_axes == (0, 2)
    assert TrainingConfig.from_flags(parse()) == TrainingConfig()
    with pytest.raises(SystemExit):
        parse("--schedule", "step")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("batchsize: 2", "did you mean batch_size"),
        ("[1, 2]", "holds no settings by name"),
        ("a: b: c", "neither YAML nor JSON"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, words):
    path = tmp_path / "training.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        TrainingConfig.from_flags(parse("--training-config", str(path)))
    assert caught.value.file == str(path)


def test_a_bad_flag_is_an_error_without_a_file():
    with pytest.raises(UsageError, match="batch_size must be above 0") as caught:
        TrainingConfig.from_flags(parse("--batch-size", "0"))
    assert caught.value.file is None


def test_identity_leaves_out_how_it_runs():
    config = TrainingConfig()
    assert replace(config, checkpoint_seconds=1, log_every=1).identity() == config.identity()
    assert replace(config, seed=1).identity() != config.identity()
