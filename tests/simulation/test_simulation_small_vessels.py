"""Small-vessel disease: on both sides, beside the ventricles, neither callosum nor U-fibres."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from msnmo_bids.simulation.anatomy import DISTANCE_STEP, Tissue
from msnmo_bids.simulation.deformation import aged
from msnmo_bids.simulation.imaging import flair
from msnmo_bids.simulation.lesion_placement import draw_load, follow_up, place_lesions
from msnmo_bids.simulation.sample import simulate_scan


def place(head, load=3.0, seed=0):
    return place_lesions(head, "SVD", load, np.random.default_rng(seed))


def test_loads_are_those_of_the_middle_grades():
    rng = np.random.default_rng(0)
    loads = np.array([draw_load(rng, "SVD") for _ in range(2000)])
    assert np.quantile(loads, (0.25, 0.5, 0.75)) == pytest.approx((4, 8, 16), rel=0.15)
    assert loads.min() > 0


@pytest.mark.parametrize("load", [0.5, 2.0])
def test_the_load_is_placed(tiny_head, load):
    lesions = place(tiny_head, load)
    assert lesions.mask.sum() / 1000 == pytest.approx(load, rel=0.4)


def test_callosum_and_u_fibres_are_spared(tiny_head):
    kinds = Counter()
    for seed in range(6):
        lesions = place(tiny_head, seed=seed)
        kinds.update(record.kind for record in lesions.records)
        band = [r.label for r in lesions.records if r.kind == "vascular_band"]
        x = np.nonzero(np.isin(lesions.labels, band))[0]
        assert np.abs(x - tiny_head.median_plane).min() > 6
    assert kinds["vascular_band"] == 6
    assert not set(kinds) & {"juxtacortical", "u_fibre", "ependymal", "periventricular"}


def test_deep_lesions_lie_on_both_sides(tiny_head):
    lesions = place(tiny_head, 4.0, seed=3)
    x = np.array([r.place[0] for r in lesions.records if r.kind == "vascular"])
    assert len(x) > 6
    assert 0.25 < (x > 0).mean() < 0.75


def test_a_lacune_is_dark(tiny_head):
    for seed in range(20):
        lesions = place(tiny_head, 4.0, seed=seed)
        if (dark := lesions.brightness < 0.7).any():
            break
    image, contrast = flair(tiny_head, lesions, np.random.default_rng(0), free=False)
    inside = dark & (lesions.profile > 0.95)
    assert image[inside].max() < 0.75
    assert contrast[inside].max() < 0
    bright = lesions.mask & (lesions.brightness > 1.2)
    assert image[bright].mean() > image[inside].mean() + 0.5


def test_ventricles_of_the_old_are_wider_and_lesions_keep_off_the_fluid(tiny_head):
    head = aged(tiny_head, np.random.default_rng(1))
    before, after = (h.tissue == Tissue.LATERAL_VENTRICLE for h in (tiny_head, head))
    assert after.sum() > before.sum()
    assert (after | ~before).all()
    beside = (head.to_lateral * DISTANCE_STEP < 1) & ~after
    assert (tiny_head.to_lateral[beside] * DISTANCE_STEP).max() < 5.5
    lesions = place(head)
    assert not lesions.mask[after].any()


def test_scans_and_visits_of_them(tiny_head):
    scan = simulate_scan(tiny_head, np.random.default_rng(0), diagnosis="SVD", load=3.0)
    assert scan.diagnosis == "SVD"
    assert scan.lesion_mask.any()
    later = follow_up(scan.head, scan.lesions, "SVD", np.random.default_rng(0))
    assert Counter(record.change for record in later.records)["stable"] > 0
