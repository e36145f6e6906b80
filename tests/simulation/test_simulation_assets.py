"""What simulated scans are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from msnmo_bids.simulation import assets
from msnmo_bids.simulation.lesion_frequency import lesion_frequency
from msnmo_bids.simulation.lesion_shapes import ShapeLibrary


def test_without_anatomy_there_is_the_head_of_the_mni_maps(monkeypatch, ball_head):
    monkeypatch.setattr(assets, "mni_head", lambda: ball_head)
    assert assets.load_assets(None) == assets.SimulationAssets([ball_head])


def test_heads_learn_where_the_lesions_of_a_library_lie(monkeypatch, ball_head):
    everywhere = np.indices((40, 40, 40)).reshape(3, -1).T * 4.0 - 80
    library = ShapeLibrary((), lesion_frequency([everywhere]))
    monkeypatch.setattr(assets, "load_shapes", lambda path: library)
    (head,) = assets.assets_with([ball_head], Path("shapes.npz")).heads
    assert head.frequency.any()
    assert not ball_head.frequency.any()
