"""Settings of a training: checks, and options of the programs."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from msnmo_bids.cli.parser import Parser
from msnmo_bids.cli.train import PROGRAM, TrainOptions
from msnmo_bids.errors import ExitCode
from msnmo_bids.training.config import TrainingConfig


def parse(*words: str) -> TrainingConfig:
    return Parser(PROGRAM, TrainOptions, "", "").options(["bids", "out", *words]).config


def test_defaults_are_those_of_the_paper():
    config = TrainingConfig()
    assert (config.learning_rate, config.batch_size, config.epochs) == (1e-4, 2, 200)
    assert (config.schedule, config.plateau_epochs) == ("plateau", 10)
    assert config.flip == config.rotation == 0.5


def test_every_field_is_documented_and_is_an_option(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = capsys.readouterr().out
    for field in fields(TrainingConfig):
        assert field.metadata["help"], field.name
        assert f"--{field.name.replace('_', '-')}" in text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, "batch_size must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0"),
        ({"flip": 1.5}, "flip must be from 0 to 1"),
        ({"ema": 1.0}, "ema must be below 1"),
        ({"side": 40}, "side must be a multiple of 16"),
        ({"epochs": 0}, "steps or epochs"),
        ({"seed": -1}, "seed must be 0 or above"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        TrainingConfig(**settings)


def test_options_give_the_settings_alone():
    assert parse() == TrainingConfig()
    config = parse("--tasks", "segmentation", "classification", "--flip-axes", "0", "2",
                   "--learning-rate", "1e-3", "--batch-size", "5")  # fmt: skip
    assert config == TrainingConfig(
        tasks=("segmentation", "classification"), flip_axes=(0, 2), learning_rate=1e-3, batch_size=5
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--batch-size", "0"), "batch_size must be above 0"),
        (("--batch-size", "two"), "invalid int value"),
        (("--schedule", "step"), "invalid choice"),
        (("--flip-axes", "3"), "invalid choice"),
    ],
)
def test_a_wrong_option_ends_the_program(capsys, words, problem):
    with pytest.raises(SystemExit) as ended:
        parse(*words)
    assert ended.value.code == ExitCode.USAGE
    assert problem in capsys.readouterr().err


def test_identity_leaves_out_how_it_runs():
    config = TrainingConfig()
    assert replace(config, checkpoint_seconds=1, log_every=1).identity() == config.identity()
    assert replace(config, seed=1).identity() != config.identity()
    assert replace(config, precision="bf16").identity() == config.identity()
    assert replace(config, precision="fp16").identity() != config.identity()
