"""The recipe of the shipped weights: its file, and its stages made tiny."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from dev import joint_recipe as recipe
from msnmo_bids.errors import BadInputError, ExitCode
from msnmo_bids.evaluation.crossval import read_curves
from msnmo_bids.model.config import CLASSIFICATION, SEGMENTATION
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.training.curves import Curves
from msnmo_bids.training.engine import Trainer


@pytest.fixture
def tiny_recipe(ball_head, tiny_config, monkeypatch, tmp_path):
    """Two stages of two steps on cubes of 32, and the arguments of the command."""
    whole = recipe.read_recipe()
    crops = whole.stages[0]
    [classifier] = [one for one in whole.stages if one.name == "classifier-96"]
    stages = (
        replace(crops, side=32, config=replace(crops.config, steps=2, side=16)),
        replace(classifier, side=32, config=replace(classifier.config, steps=2, accumulate=2)),
    )
    tiny = replace(whole, stages=stages, network=tiny_config)
    monkeypatch.setattr(recipe, "read_recipe", lambda _: tiny)
    monkeypatch.setattr(recipe, "assets_of", lambda _: SimulationAssets([ball_head]))
    monkeypatch.setattr(Curves, "draw", lambda self: None)
    source = recipe.SimulatedSource
    monkeypatch.setattr(
        recipe, "SimulatedSource", lambda *args, **more: source(*args, fill=2, **more)
    )
    paths = {"anatomy": tmp_path, "lesion-shapes": tmp_path, "out": tmp_path / "out"}
    words = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    monkeypatch.setattr("sys.argv", ["recipe", *words, "--threads", "1"])
    return tmp_path / "out"


def test_the_stages_follow_each_other_and_done_ones_are_kept(tiny_recipe, monkeypatch):
    assert recipe.main() == ExitCode.OK
    averaged = [
        torch.load(tiny_recipe / f"{name}.averaged.pt", weights_only=True)
        for name in ("crops", "classifier-96")
    ]
    for key, value in averaged[0].items():
        frozen = key.startswith(("sharing.", "segmentation."))
        assert torch.equal(value, averaged[1][key]) or not frozen, key
    assert not all(torch.equal(averaged[0][key], averaged[1][key]) for key in averaged[0])
    for name in ("crops", "classifier-96"):
        assert len(read_curves(tiny_recipe / name / "curves.csv")) == 2
    monkeypatch.setattr(Trainer, "run", pytest.fail)
    assert recipe.main() == ExitCode.OK


def test_an_error_ends_with_its_exit_code(tiny_recipe, caplog):
    (tiny_recipe / "crops").mkdir(parents=True)
    (tiny_recipe / "crops" / "checkpoint.pt").write_text("nothing")
    assert recipe.main() == ExitCode.BAD_DATA
    assert "Delete it" in caplog.text


def test_a_stage_can_keep_a_share_of_the_weights_before_it(ball_head, tiny_recipe, tmp_path):
    tiny = recipe.read_recipe(None)
    crops = tiny.stages[0]
    results = {}
    for share in (0.0, 0.25):
        stages = (replace(crops, old_share=share),)
        out = tmp_path / str(share)
        network = recipe.train(replace(tiny, stages=stages), SimulationAssets([ball_head]), out)
        results[share] = network.state_dict()
    torch.manual_seed(crops.config.seed)
    before = recipe.JointNetwork(tiny.network).state_dict()
    for name, value in results[0.25].items():
        wanted = 0.75 * results[0.0][name] + 0.25 * before[name]
        torch.testing.assert_close(value, wanted)
    assert any(not torch.equal(value, before[name]) for name, value in results[0.0].items())


def test_a_stage_is_the_mean_of_its_runs(ball_head, tiny_recipe, tmp_path):
    tiny = recipe.read_recipe(None)
    stage = replace(tiny.stages[0], runs=2, old_share=0.25)
    both = recipe.train(
        replace(tiny, stages=(stage,)), SimulationAssets([ball_head]), tmp_path / "both"
    )
    torch.manual_seed(stage.config.seed)
    before = recipe.JointNetwork(tiny.network).state_dict()
    results = []
    for number in range(2):
        config = replace(stage.config, seed=stage.config.seed + 1000 * number)
        network = recipe.JointNetwork(tiny.network)
        network.load_state_dict(before)
        source = recipe.samples_of(
            replace(stage, config=config), ("MS", "NMOSD"), SimulationAssets([ball_head])
        )
        out = tmp_path / str(number)
        results.append(Trainer(network, recipe.JointLoss(tiny.loss), config, source, out).run())
    assert (tmp_path / "both" / "crops-2" / "curves.csv").exists()
    changed = 0
    for name, value in both.state_dict().items():
        one, other = (result[name] for result in results)
        changed += not torch.equal(one, other)
        wanted = 0.375 * (one + other) + 0.25 * before[name]
        torch.testing.assert_close(value, wanted)
    assert changed


def test_the_shipped_recipe():
    found = recipe.read_recipe()
    late = ("segmentation-128", "gathered-128")
    stays = dict.fromkeys(late, ("sharing",)) | {"classifier-96": ("sharing", "segmentation")}
    nmosd = {"classifier-96": 0.5, "segmentation-128": 0.3, "gathered-128": 0.25}
    for stage in found.stages:
        classifies = stage.name.startswith("classifier")
        assert stage.config.tasks == (CLASSIFICATION if classifies else SEGMENTATION,)
        assert stage.config.frozen == stays.get(stage.name, ())
        assert stage.nmosd_share == nmosd.get(stage.name, 0.1)
    assert [stage.config.seed for stage in found.stages] == list(range(len(found.stages)))
    assert found.network.pooling == "lesion"
    assert found.loss.skip_empty_dice


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_stage_says_how_many_brains_have_no_lesion(ball_head, share):
    stage = replace(recipe.read_recipe().stages[0], side=32, lesion_free_share=share)
    source = recipe.samples_of(stage, ("MS", "NMOSD"), SimulationAssets([ball_head]))
    for seed in range(3):
        source.pool.refresh(np.random.default_rng(seed))
    assert [bool(brain.lesions.any()) for brain in source.pool.brains] == [share == 0.0] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1", "stages"),
        ("stages: [{name: a}]", "side"),
        ("stages: [{name: a, side: 32, size: 1}]", "size"),
        ("{stages: [{name: a, side: 32}], more: 1}", "unknown: more"),
        ("stages: [{name: a, side: 32, training: {step: 1}}]", "did you mean"),
        ("stages: [{name: a, side: 32, old_share: 1.0}]", "old_share must be"),
        ("stages: [{name: a, side: 32, runs: 0}]", "runs must be"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path, text, message):
    file = tmp_path / "recipe.yml"
    file.write_text(text)
    with pytest.raises(BadInputError, match=message) as caught:
        recipe.read_recipe(file)
    assert str(file) in str(caught.value)


def test_a_recipe_needs_only_what_differs(tmp_path):
    file = tmp_path / "recipe.yml"
    file.write_text("{training: {batch_size: 1}, stages: [{name: a, side: 32}]}")
    [stage] = recipe.read_recipe(file).stages
    assert asdict(stage)["name"] == "a"
    assert stage.config.batch_size == 1
    assert stage.config.learning_rate == 1e-4
