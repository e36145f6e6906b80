"""Loads, places and volumes of simulated lesions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from msnmo_bids.errors import BadInputError
from msnmo_bids.simulation.anatomy import DISTANCE_STEP, Tissue, head_from_tissue
from msnmo_bids.simulation.assets import (
    LARGEST_MAGNIFICATION,
    ShapeLibrary,
    load_shapes,
    ovoid,
    random_rotation,
)
from msnmo_bids.simulation.lesion_placement import draw_load, follow_up, place_lesions
from msnmo_bids.simulation.stamping import RIM, Stamper

DRAWS = 4000
ONLY_NMOSD = {"ependymal", "third_ventricle", "fourth_ventricle", "area_postrema"}


@pytest.fixture(scope="module")
def loads() -> np.ndarray:
    rng = np.random.default_rng(7)
    return np.array([draw_load(rng) for _ in range(DRAWS)])


@pytest.mark.parametrize(
    ("low", "high", "share"),
    [(-1, 0, 0.03), (0, 1.8, 0.25), (1.8, 14, 0.25), (14, 28.5, 0.25), (28.5, 100, 0.25)],
)
def test_load_histogram(loads, low, high, share):
    """The quartiles of the published cohort, within binomial bounds of 99.9 %."""
    among = DRAWS if high == 0 else int((loads > 0).sum())
    count = int(((loads > low) & (loads <= high)).sum())
    assert stats.binom.ppf(0.0005, among, share) <= count <= stats.binom.ppf(0.9995, among, share)


def test_share_without_lesions_can_be_chosen():
    rng = np.random.default_rng(3)
    assert all(draw_load(rng, diagnosis, without=1.0) == 0 for diagnosis in ("MS", "NMOSD"))
    assert all(draw_load(rng, diagnosis, without=0.0) > 0 for diagnosis in ("MS", "NMOSD"))


def test_loads_are_in_range_and_not_piled_up(loads):
    assert loads.min() == 0
    assert loads.max() <= 70
    positive = loads[loads > 0]
    assert np.unique(positive).size == positive.size
    assert positive.min() >= 0.1


@pytest.mark.parametrize("diagnosis", ["MS", "NMOSD"])
@pytest.mark.parametrize("load", [0.3, 1.0, 3.0, 6.0])
def test_placed_load_is_near_the_wanted_one(tiny_head, diagnosis, load):
    """On average over a few heads; a single lesion may overshoot."""
    placed = []
    for seed in range(3):
        lesions = place_lesions(tiny_head, diagnosis, load, np.random.default_rng(seed))
        placed.append(lesions.mask.sum() / 1000)
        assert 0.6 * load < placed[-1] < 2.5 * load + 0.5
    assert 0.8 * load < np.mean(placed) < 1.8 * load + 0.3


def test_more_load_gives_more_lesion(tiny_head):
    volumes = [
        place_lesions(tiny_head, "MS", load, np.random.default_rng(5)).mask.sum()
        for load in (0.0, 0.2, 2.0, 8.0)
    ]
    assert volumes[0] == 0
    assert (np.diff(volumes) > 0).all()


@pytest.mark.parametrize(("diagnosis", "load"), [("HC", 10.0), ("MS", 0.0), ("NMOSD", 0.0)])
def test_no_lesion(tiny_head, diagnosis, load):
    lesions = place_lesions(tiny_head, diagnosis, load, np.random.default_rng(0))
    assert not lesions.profile.any()
    assert lesions.records == []


@pytest.mark.parametrize("diagnosis", ["MS", "NMOSD"])
def test_lesions_lie_in_tissue(tiny_head, diagnosis):
    for seed in range(3):
        lesions = place_lesions(tiny_head, diagnosis, 5.0, np.random.default_rng(seed))
        found = set(np.unique(tiny_head.tissue[lesions.mask]).tolist())
        assert found <= {
            Tissue.WHITE_MATTER, Tissue.CORTEX, Tissue.DEEP_GREY, Tissue.CEREBELLAR_WHITE,
            Tissue.CEREBELLAR_CORTEX, Tissue.BRAINSTEM,
        }  # fmt: skip
        assert 0 <= lesions.profile.min() <= lesions.profile.max() <= 1
        np.testing.assert_array_equal(lesions.mask, lesions.profile >= RIM)
        # brighter than any tissue where the lesion is full, even in dark cores
        assert lesions.brightness[lesions.profile > 0.9].min() > 0.9
        assert np.median(lesions.brightness[lesions.profile > 0.9]) > 1.2


def test_each_disease_has_its_own_kinds_of_lesions(tiny_head):
    kinds = {
        diagnosis: {
            record.kind
            for seed in range(14)
            for record in place_lesions(
                tiny_head, diagnosis, 9.0, np.random.default_rng(seed)
            ).records
        }
        for diagnosis in ("MS", "NMOSD")
    }
    kinds = {name: found - {"vascular"} for name, found in kinds.items()}
    stem = {"midbrain", "pons", "medulla"}
    assert kinds["MS"] >= {
        "periventricular",
        "confluent",
        "deep",
        "juxtacortical",
        "u_fibre",
        "pons",
    }
    assert kinds["MS"] <= {
        "periventricular", "confluent", "deep", "juxtacortical", "u_fibre", "cerebellar", "basal",
        *stem,
    }  # fmt: skip
    assert kinds["NMOSD"] >= {"ependymal", "hemispheric", "juxtacortical"}
    assert kinds["NMOSD"] <= {
        *ONLY_NMOSD, "hemispheric", "corticospinal", "juxtacortical", "u_fibre", "basal", *stem,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("diagnosis", "people", "shares"),
    [("NMOSD", 100, {("ependymal",): 0.28, ("medulla", "area_postrema"): 0.17,
                     ("third_ventricle", "fourth_ventricle"): 0.17 / 2}),  # half of them sheets
     ("MS", 40, {("medulla",): 0.11, ("pons",): 0.31})],
)  # fmt: skip
def test_sites_are_as_frequent_as_published(tiny_head, diagnosis, people, shares):
    """In per cent of the people with lesions."""
    kinds = [
        {r.kind for r in place_lesions(tiny_head, diagnosis, 2.0, np.random.default_rng(s)).records}
        for s in range(people)
    ]
    for asked, share in shares.items():
        count = sum(bool(found & set(asked)) for found in kinds)
        low, high = stats.binom.ppf((0.001, 0.999), people, share)
        assert low <= count <= high, asked


def test_lesions_lie_at_the_ventricle_that_they_are_named_after(tiny_head):
    stamper = Stamper(tiny_head, np.random.default_rng(0), None)
    for place, kind in (
        ("third_ventricle", Tissue.THIRD_VENTRICLE),
        ("fourth_ventricle", Tissue.FOURTH_VENTRICLE),
    ):
        voxels = np.unravel_index(stamper.places.candidates(place)[0], tiny_head.tissue.shape)
        own = np.argwhere(tiny_head.tissue == kind)
        nearest = [np.linalg.norm(own - voxel, axis=1).min() for voxel in np.transpose(voxels)]
        assert nearest
        assert np.mean(np.array(nearest) < 3.3) > 0.9


def test_nmosd_has_few_lesions_whatever_the_load(tiny_head):
    numbers = {
        load: [
            len(place_lesions(tiny_head, "NMOSD", load, np.random.default_rng(seed)).records)
            for seed in range(40)
        ]
        for load in (3.0, 20.0)
    }
    assert (
        5 <= np.median(numbers[3.0]) <= 13
    )  # published: 6 (quartiles 3 to 11), typical locations apart
    assert np.median(numbers[20.0]) < 2 * np.median(numbers[3.0])


def test_records_are_in_the_world(tiny_head):
    shifted = replace(tiny_head, affine=tiny_head.affine @ np.diag([-1.0, 1, 1, 1]))
    one = place_lesions(tiny_head, "MS", 1.0, np.random.default_rng(1)).records
    other = place_lesions(shifted, "MS", 1.0, np.random.default_rng(1)).records
    assert [r.volume for r in one] == [r.volume for r in other]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.place[1:], b.place[1:])
        assert a.place[0] + b.place[0] == pytest.approx(2 * tiny_head.affine[0, 3])
    for record in one:
        voxel = np.rint(np.array(record.place) - tiny_head.affine[:3, 3]).astype(int)
        assert ((voxel >= 0) & (voxel < 64)).all()


def test_a_head_without_places_ends(tiny_head):
    """Nowhere to put a lesion: no lesion, and no endless loop."""
    tissue = np.where(tiny_head.tissue > 0, Tissue.SOFT_TISSUE, Tissue.AIR).astype(np.uint8)
    empty = replace(tiny_head, tissue=tissue)
    for diagnosis in ("MS", "NMOSD"):
        lesions = place_lesions(empty, diagnosis, 5.0, np.random.default_rng(0))
        assert not lesions.mask.any()


def test_same_seed_same_lesions(tiny_head):
    one, other, third = (
        place_lesions(tiny_head, "MS", 2.0, np.random.default_rng(seed)) for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(one.profile, other.profile)
    assert one.records == other.records
    assert not np.array_equal(one.profile, third.profile)


@pytest.mark.parametrize("volume", [30.0, 200.0, 2000.0])
def test_ovoid(volume):
    rng = np.random.default_rng(0)
    for _ in range(3):
        points = ovoid(volume, rng)
        assert len(points) / 8 == pytest.approx(volume, rel=0.15)  # eight points a mm³
        extent = np.ptp(points, axis=0)
        assert extent[0] == extent.max()
        np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-5)
    streak = np.ptp(ovoid(volume, rng, elongation=3.0), axis=0)
    assert streak[0] > 2.5 * streak[1:].max()


def test_random_rotation_is_one():
    rng = np.random.default_rng(0)
    turns = np.array([random_rotation(rng) for _ in range(200)])
    np.testing.assert_allclose(
        turns @ turns.transpose(0, 2, 1), np.tile(np.eye(3), (200, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(turns), 1)
    assert np.abs(turns.mean(axis=0)).max() < 0.2


def library(path, **changes):
    corners = np.argwhere(np.ones((4, 4, 4))) + 50
    arrays = {
        "voxels": np.vstack([corners, corners[:5], corners * [1, 1, 1] + 20]).astype(np.int16),
        "start": np.array([0, 64, 69, 133]),
        "affine": np.diag([-1.0, 1.0, 1.0, 1.0]),
    }
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return path


def test_load_shapes_leaves_specks_out(tmp_path):
    shapes = load_shapes(library(tmp_path / "shapes.npz"))
    assert len(shapes.points) == 2
    for points in shapes.points:
        assert points.shape == (64, 3)
        np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-5)


@pytest.mark.parametrize("missing", ["voxels", "start", "affine"])
def test_load_shapes_refuses(tmp_path, missing):
    with pytest.raises(BadInputError, match="not a library of lesion shapes"):
        load_shapes(library(tmp_path / "shapes.npz", **{missing: None}))


def test_load_shapes_refuses_other_files(tmp_path):
    good = library(tmp_path / "shapes.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(good[: len(good) // 2])
    np.save(tmp_path / "array.npy", np.zeros(3))
    library(tmp_path / "flat.npz", voxels=np.zeros((5, 2)))
    for name in ("cut.npz", "array.npy", "flat.npz"):
        with pytest.raises(BadInputError, match="not a library of lesion shapes"):
            load_shapes(tmp_path / name)


def test_real_shapes_are_scaled_to_the_wanted_volume(tiny_head):
    grid = np.argwhere(np.ones((5, 5, 5))) - 2.0
    shapes = ShapeLibrary((grid.astype(np.float32),))
    placed = [
        place_lesions(tiny_head, "MS", 2.0, np.random.default_rng(seed), shapes).mask.sum()
        for seed in range(3)
    ]
    assert 1600 < np.mean(placed) < 3600


def test_distances_of_a_head(tiny_head):
    lateral = tiny_head.tissue == Tissue.LATERAL_VENTRICLE
    assert (tiny_head.to_lateral[lateral] == 0).all()
    assert tiny_head.to_lateral[~lateral].min() == 1 / DISTANCE_STEP
    assert tiny_head.to_lateral[31, 31, 31] == pytest.approx(
        np.linalg.norm(np.argwhere(lateral) - 31, axis=1).min() / DISTANCE_STEP, abs=1
    )
    assert (tiny_head.to_surface[np.isin(tiny_head.tissue, (1, 3, 4, 5))] <= 0).all()
    assert (tiny_head.to_surface[tiny_head.tissue == Tissue.SCALP] > 0).all()


def test_head_without_a_ventricle_is_far_from_it():
    head = head_from_tissue(np.full((8, 8, 8), Tissue.WHITE_MATTER, np.uint8), np.eye(4), "plain")
    assert (head.to_lateral == 255).all()


def test_loads_of_the_other_classes():
    rng = np.random.default_rng(0)
    assert draw_load(rng, "HC") == 0
    loads = np.array([draw_load(rng, "NMOSD") for _ in range(DRAWS)])
    empty = (loads == 0).sum()
    assert stats.binom.ppf(0.0005, DRAWS, 1 / 3) <= empty <= stats.binom.ppf(0.9995, DRAWS, 1 / 3)
    assert 0.9 < np.median(loads[loads > 0]) < 1.5
    assert loads.max() <= 40


@pytest.mark.parametrize("diagnosis", ["MS", "NMOSD"])
def test_every_voxel_of_the_mask_has_one_lesion(tiny_head, diagnosis):
    lesions = place_lesions(tiny_head, diagnosis, 6.0, np.random.default_rng(1))
    np.testing.assert_array_equal(lesions.labels > 0, lesions.mask)
    numbers = [record.label for record in lesions.records]
    assert numbers == list(range(1, len(numbers) + 1))  # no two lesions share a label
    assert set(np.unique(lesions.labels)) - {0} <= set(numbers)
    assert {record.change for record in lesions.records} == {None}


def test_both_classes_have_vascular_lesions(tiny_head):
    for diagnosis in ("MS", "NMOSD"):
        with_vascular = sum(
            any(
                record.kind == "vascular"
                for record in place_lesions(
                    tiny_head, diagnosis, 0.2, np.random.default_rng(seed)
                ).records
            )
            for seed in range(150)
        )
        assert stats.binom.ppf(0.001, 150, 0.15) <= with_vascular
        assert with_vascular <= stats.binom.ppf(0.999, 150, 0.15)


def test_a_less_typical_case_borrows_what_is_published(tiny_head):
    """MS never has sheets or lesions of third ventricle and area postrema, however untypical."""

    def kinds(diagnosis: str, typicality: float) -> set[str]:
        return {
            record.kind
            for seed in range(6)
            for record in place_lesions(
                tiny_head, diagnosis, 4.0, np.random.default_rng(seed), typicality=typicality
            ).records
        } - {"vascular"}

    for typicality in (0.0, 0.6):
        assert "hemispheric" in kinds("MS", typicality)
        assert not kinds("MS", typicality) & ONLY_NMOSD
    assert "hemispheric" not in kinds("MS", 1.0)
    assert kinds("NMOSD", 0.0) == {"periventricular", "juxtacortical", "u_fibre"}
    assert kinds("NMOSD", 0.6) > kinds("NMOSD", 0.0)


@pytest.mark.parametrize("diagnosis", ["MS", "NMOSD"])
def test_a_less_typical_case_has_no_more_lesions(tiny_head, diagnosis):
    """The other disease's part fills what is left of the load, confluent bands included."""
    volumes = [
        place_lesions(tiny_head, diagnosis, 20.0, np.random.default_rng(seed), typicality=0.8).mask
        for seed in range(8)
    ]
    assert np.mean([mask.sum() for mask in volumes]) == pytest.approx(20_000, rel=0.12)


def test_follow_up(tiny_head):
    """Lesions keep their label; what is called enlarging grows, shrinking shrinks, and so on."""
    seen = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        first = place_lesions(tiny_head, "MS", 3.0, rng)
        second = follow_up(tiny_head, first, "MS", rng)
        third = follow_up(tiny_head, second, "MS", rng)
        for before, after in ((first, second), (second, third)):
            old = {record.label: record for record in before.records}
            new = {record.label: record for record in after.records}
            assert old.keys() <= new.keys()
            np.testing.assert_array_equal(after.labels > 0, after.mask)
            for label, record in new.items():
                seen.add(record.change)
                if label not in old:
                    assert record.change == "new"
                    assert record.volume > 0
                elif record.change == "stable":
                    assert record.volume == old[label].volume
                    assert record.place == old[label].place
                elif record.change == "enlarging":
                    assert record.volume > old[label].volume
                elif record.change == "shrinking":
                    assert 0 < record.volume < old[label].volume
                else:
                    assert record.change == "vanished"
                    assert record.volume == 0
                    assert not (after.labels == label).any()
                assert record.kind == old.get(label, record).kind
    assert seen == {"new", "stable", "enlarging", "shrinking", "vanished"}


def test_healthy_heads_stay_healthy(tiny_head):
    rng = np.random.default_rng(0)
    first = place_lesions(tiny_head, "HC", 0.0, rng)
    assert follow_up(tiny_head, first, "HC", rng).records == []


def test_ovoids_at_the_ventricle_stand_on_it(tiny_head):
    """Dawson's fingers: the long axis leads away from the lateral ventricle."""
    stamper = Stamper(tiny_head, np.random.default_rng(0), None)
    lateral = tiny_head.to_lateral.astype(float)
    slopes = np.gradient(lateral)
    angles = []
    for flat in stamper.places.candidates("periventricular")[0][::400]:
        voxel = np.array(np.unravel_index(flat, lateral.shape))
        away = np.array([slope[tuple(voxel)] for slope in slopes])
        axis = stamper._axes("periventricular", voxel.astype(float))[:, 0]
        angles.append(abs(away @ axis) / np.linalg.norm(away))
    assert np.median(angles) > 0.85


def test_u_fibre_follows_the_cortex(tiny_head):
    stamper = Stamper(tiny_head, np.random.default_rng(2), None)
    assert stamper.u_fibre(400.0)
    lesions = stamper.result()
    core = lesions.profile > 0.5
    assert tiny_head.to_cortex[core].max() * DISTANCE_STEP < 5
    extent = np.ptp(np.argwhere(core), axis=0) + 1
    assert core.sum() < 0.5 * extent.prod()  # a bent sheet, no ball
    assert lesions.records[0].kind == "u_fibre"
    assert 200 < core.sum() < 800


@pytest.mark.parametrize("diagnosis", ["MS", "NMOSD"])
def test_millimetres_do_not_depend_on_the_grid(tiny_head, diagnosis):
    """A coarser head holds the load that was asked for, in lesions of the same sizes."""
    filled, sizes = [], []
    for head in (tiny_head, tiny_head.resampled(1.5)):
        maps = [
            place_lesions(head, diagnosis, 4.0, np.random.default_rng(seed)) for seed in range(12)
        ]
        filled.append(np.mean([m.mask.sum() for m in maps]) * head.spacing**3 / 1000)
        sizes.append(np.median([record.volume for m in maps for record in m.records]))
    assert filled[1] == pytest.approx(filled[0], rel=0.3)
    assert sizes[1] == pytest.approx(sizes[0], rel=0.6)


@pytest.mark.parametrize("volume", [60.0, 150.0, 500.0])
def test_lesion_has_the_wanted_volume_on_any_grid(volume):
    """To its rim, on average: small lesions must not grow with the voxels."""
    tissue = np.full((72, 72, 72), Tissue.WHITE_MATTER, np.uint8)
    tissue[:, :, :2] = Tissue.LATERAL_VENTRICLE
    head = head_from_tissue(tissue, np.eye(4), "slab")
    for grid in (head, head.resampled(1.5)):
        stamper = Stamper(grid, np.random.default_rng(2), None)
        for _ in range(12):
            stamper.lesion("deep", volume, soft=0.6)
        found = np.median([record.volume for record in stamper.records])
        assert 0.75 * volume < found < 1.3 * volume


def test_real_shapes_are_not_magnified_much():
    small, large = (np.zeros((n, 3), np.float32) for n in (50, 1000))
    library = ShapeLibrary((small, large))
    rng = np.random.default_rng(0)
    most = LARGEST_MAGNIFICATION**3
    assert all(len(library.draw(1.01 * 50 * most, rng)) == 1000 for _ in range(10))
    assert {len(library.draw(40.0, rng)) for _ in range(30)} == {50, 1000}
    assert library.draw(1.01 * 1000 * most, rng) is None


@pytest.mark.parametrize("load", [5.0, 20.0])
def test_number_and_volumes_of_ms_lesions(load):
    """Many small lesions and a few large ones that hold most of a heavy load."""
    tissue = np.full((120, 120, 120), Tissue.WHITE_MATTER, np.uint8)
    radius = np.linalg.norm(
        (np.indices(tissue.shape) - 59.5) * [[[[1]]], [[[0.5]]], [[[1]]]], axis=0
    )
    tissue[radius < 12] = Tissue.LATERAL_VENTRICLE
    tissue[radius > 55] = Tissue.CORTEX
    head = head_from_tissue(tissue, np.eye(4), "block")
    counts, shares = [], []
    for seed in range(6):
        lesions = place_lesions(head, "MS", load, np.random.default_rng(seed))
        sizes = np.bincount(lesions.labels.ravel())[1:]
        counts.append((sizes >= 3).sum())
        shares.append(sizes[sizes > 1000].sum() / sizes.sum())
    assert 20 < np.median(counts) < 150
    assert np.mean(shares) < 0.6 if load < 10 else np.mean(shares) > 0.4


def test_no_lesion_lies_in_the_septum():
    tissue = np.full((60, 60, 60), Tissue.WHITE_MATTER, np.uint8)
    tissue[22:29, 15:45, 20:40] = tissue[31:38, 15:45, 20:40] = Tissue.LATERAL_VENTRICLE
    head = head_from_tissue(tissue, np.eye(4), "two horns")
    between = np.zeros(tissue.shape, bool)
    between[29:31, 20:40, 25:35] = True
    assert head.septum[between].all()
    assert head.septum.mean() < 0.1
    lesions = place_lesions(head, "MS", 15.0, np.random.default_rng(0))
    assert lesions.mask.any()
    assert not (lesions.mask & head.septum).any()
