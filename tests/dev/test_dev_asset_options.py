"""The options that name heads and lesion shapes."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from dev.asset_options import add_asset_options, assets_of
from msnmo_bids.errors import MsnmoError
from msnmo_bids.simulation import assets
from msnmo_bids.simulation.assets import ShapeLibrary


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    add_asset_options(parser)
    return parser


def test_options_name_heads_shapes_and_cache(parser, ball_head, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(assets, "load_heads", lambda *paths: asked.append(paths) or [ball_head])
    library = ShapeLibrary(())
    monkeypatch.setattr(assets, "load_shapes", {Path("shapes.npz"): library}.get)
    words = ["--anatomy", "heads", "--lesion-shapes", "shapes.npz", "--cache", str(tmp_path)]
    found = assets_of(parser.parse_args(words))
    assert asked == [(Path("heads"), tmp_path)]
    assert found == assets.SimulationAssets([ball_head], library)
    assert assets_of(parser.parse_args(words[:2])).shapes is None


def test_a_folder_without_heads_is_an_error(parser, tmp_path):
    with pytest.raises(MsnmoError, match=tmp_path.name):
        assets_of(parser.parse_args(["--anatomy", str(tmp_path)]))


def test_a_program_can_insist_on_lesion_shapes(capsys):
    parser = argparse.ArgumentParser()
    add_asset_options(parser, needs_shapes=True)
    with pytest.raises(SystemExit):
        parser.parse_args(["--anatomy", "heads"])
    assert "--lesion-shapes" in capsys.readouterr().err
