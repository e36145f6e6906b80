"""What simulated scans are made of, read from the options of the developers' programs."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from msnmo_bids.errors import MsnmoError
from msnmo_bids.simulation import material
from msnmo_bids.simulation.lesion_frequency import lesion_frequency
from msnmo_bids.simulation.lesion_shapes import ShapeLibrary


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    material.add_material_options(parser)
    return parser


def test_options_name_heads_shapes_and_cache(parser, ball_head, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(material, "load_heads", lambda *paths: asked.append(paths) or [ball_head])
    library = ShapeLibrary(())
    monkeypatch.setattr(material, "load_shapes", {Path("shapes.npz"): library}.get)
    words = ["--anatomy", "heads", "--lesion-shapes", "shapes.npz", "--cache", str(tmp_path)]
    found = material.material_of(parser.parse_args(words))
    assert asked == [(Path("heads"), tmp_path)]
    assert found == material.Material([ball_head], library)
    assert material.material_of(parser.parse_args(words[:2])).shapes is None


def test_without_anatomy_there_is_the_head_of_the_mni_maps(monkeypatch, ball_head):
    monkeypatch.setattr(material, "mni_head", lambda: ball_head)
    assert material.load_material(None) == material.Material([ball_head])


def test_heads_learn_where_the_lesions_of_a_library_lie(monkeypatch, ball_head):
    everywhere = np.indices((40, 40, 40)).reshape(3, -1).T * 4.0 - 80
    library = ShapeLibrary((), lesion_frequency([everywhere]))
    monkeypatch.setattr(material, "load_shapes", lambda path: library)
    (head,) = material.material_with([ball_head], Path("shapes.npz")).heads
    assert head.frequency.any()
    assert not ball_head.frequency.any()


def test_a_folder_without_heads_is_an_error(parser, tmp_path):
    with pytest.raises(MsnmoError, match=tmp_path.name):
        material.material_of(parser.parse_args(["--anatomy", str(tmp_path)]))


def test_a_program_can_insist_on_lesion_shapes(capsys):
    parser = argparse.ArgumentParser()
    material.add_material_options(parser, needs_shapes=True)
    with pytest.raises(SystemExit):
        parser.parse_args(["--anatomy", "heads"])
    assert "--lesion-shapes" in capsys.readouterr().err
