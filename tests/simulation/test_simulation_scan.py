"""Deformation, contrast, acquisition, and the scan they make together."""

from __future__ import annotations

import functools
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.eulerangles import euler2mat

from msnmo_bids.simulation import deformation, sample
from msnmo_bids.simulation.anatomy import DISTANCE_STEP, Tissue
from msnmo_bids.simulation.deformation import deform, resize_linear, smooth_noise
from msnmo_bids.simulation.imaging import (
    PRESETS,
    TISSUE_RANGE,
    Protocol,
    _horn_caps,
    _lesion_mimics,
    _midline,
    _outer_wall,
    _radiation,
    degrade,
    flair,
    k_space_artefacts,
    random_protocol,
    sample_grid,
    tissue_means,
)
from msnmo_bids.simulation.lesion_placement import place_lesions
from msnmo_bids.simulation.sample import (
    _skull_base,
    imperfect_brain_mask,
    simulate_scan,
    training_cube,
)

FINE = Protocol("fine", (1.0, 1.0, 1.0), 1.0, 0.02, 0.1)
THICK = Protocol("thick", (0.8, 0.8, 4.0), 3.5, 0.02, 0.1)
MOVES = ("ROTATION", "SCALING", "SHEAR", "MIRRORED", "DISPLACEMENT", "VENTRICLES", "ATROPHY")


@pytest.fixture
def still(monkeypatch):
    """Deform no head, but by what is set."""
    for name in MOVES:
        monkeypatch.setattr(deformation, name, 0.0)
    return functools.partial(monkeypatch.setattr, deformation)


@pytest.mark.parametrize("protocol", [FINE, THICK])
def test_same_seed_same_scan(tiny_head, protocol):
    one, other, third = (
        simulate_scan(tiny_head, np.random.default_rng(seed), protocol=protocol, load=2.0)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.lesion_mask, other.lesion_mask)
    np.testing.assert_array_equal(one.affine, other.affine)
    assert one.lesions.records == other.lesions.records
    assert not np.array_equal(one.image, third.image)


def test_everything_is_drawn_from_the_seed(tiny_head):
    one, other = (simulate_scan(tiny_head, np.random.default_rng((3, 1))) for _ in range(2))
    assert one.protocol == other.protocol
    np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize("diagnosis", ["MS", "NMOSD"])
@pytest.mark.parametrize("protocol", [FINE, THICK])
def test_lesions_lie_in_the_brain(tiny_head, diagnosis, protocol):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        scan = simulate_scan(tiny_head, rng, diagnosis=diagnosis, protocol=protocol, load=3.0)
        assert scan.lesion_mask.dtype == np.uint8
        assert scan.lesion_mask.max() == 1
        outside = scan.brain_distance[scan.lesion_mask > 0] > 0.5  # mm
        assert outside.mean() < 0.01
        volume = scan.lesion_mask.sum() * np.prod(scan.zooms) / 1000
        assert 1.5 < volume < 8.0


def test_healthy_control_has_no_lesion(tiny_head):
    scan = simulate_scan(
        tiny_head, np.random.default_rng(0), diagnosis="HC", load=8.0, protocol=FINE
    )
    assert not scan.lesion_mask.any()
    assert scan.lesions.records == []


def test_lesions_are_bright(tiny_head):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        scan = simulate_scan(tiny_head, rng, load=4.0, protocol=replace(FINE, bias=0.0))
        lesion = scan.image[scan.lesion_mask > 0].mean()
        tissue = np.median(scan.image[(scan.lesion_mask == 0) & (scan.brain_distance < -3)])
        assert lesion > 1.1 * tissue


@pytest.mark.usefixtures("still")
def test_affine_of_a_scan_keeps_the_place(tiny_head):
    """A landmark keeps its world position at every voxel size and under a tilted head."""
    tilted = np.eye(4)
    tilted[:3, :3] = euler2mat(0.3, -0.2, 0.4)
    for affine in (tiny_head.affine, tilted @ tiny_head.affine):
        head = replace(tiny_head, affine=affine)
        ventricle = np.argwhere(head.to_surface <= 0).mean(axis=0)
        expected = nib.affines.apply_affine(affine, ventricle)
        for protocol in (FINE, THICK, PRESETS["1.5T-2D"]):
            rng = np.random.default_rng(0)
            scan = simulate_scan(head, rng, diagnosis="HC", protocol=protocol)
            found = nib.affines.apply_affine(
                scan.affine, np.argwhere(scan.brain_distance <= 0).mean(axis=0)
            )
            np.testing.assert_allclose(
                found, expected, atol=0.6
            )  # a slice of 6.5 mm has no sharper edge
            corner = nib.affines.apply_affine(scan.affine, [-0.5] * 3)
            np.testing.assert_allclose(
                corner, nib.affines.apply_affine(affine, [-0.5] * 3), atol=1e-9
            )


@pytest.mark.parametrize(
    ("voxel", "shape"),
    [((1, 1, 1), (64, 64, 64)), ((0.8, 0.8, 4), (80, 80, 16)), ((0.9, 0.9, 6.5), (71, 71, 10)),
     ((5, 0.8, 0.8), (13, 80, 80)), ((100, 1, 1), (2, 64, 64))],
)  # fmt: skip
def test_acquisition_grid(voxel, shape):
    volume = np.random.default_rng(0).random((64, 64, 64), dtype=np.float32)
    protocol = Protocol("any", voxel, max(voxel))
    sampled, zooms = sample_grid(volume, 1.0, protocol)
    assert sampled.shape == shape
    np.testing.assert_allclose(zooms * shape, 64.0)  # the field of view stays
    assert sampled.mean() == pytest.approx(volume.mean(), abs=0.01)
    assert protocol.slice_axis == int(np.argmax(voxel))


def test_slices_average_over_their_thickness():
    volume = np.zeros((32, 32, 32), np.float32)
    volume[:, :, 16:18] = 1
    thin, _ = sample_grid(volume, 1.0, Protocol("gap", (1, 1, 8), 1.0))
    thick, _ = sample_grid(volume, 1.0, Protocol("full", (1, 1, 8), 8.0))
    assert thick[16, 16].max() == pytest.approx(2 / 8, abs=0.13)
    assert (thick[16, 16] > 0.05).sum() >= (thin[16, 16] > 0.05).sum()
    assert thick[16, 16].max() > 0


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets(tiny_head, name):
    scan = simulate_scan(tiny_head, np.random.default_rng(0), protocol=PRESETS[name], load=2.0)
    assert scan.protocol.name == name
    np.testing.assert_allclose(scan.zooms, PRESETS[name].voxel, rtol=0.06)
    assert scan.image.shape == scan.lesion_mask.shape == scan.brain_distance.shape
    assert np.isfinite(scan.image).all()
    assert scan.image.min() >= 0


def test_random_protocols():
    rng = np.random.default_rng(0)
    protocols = [random_protocol(rng) for _ in range(300)]
    three = [p for p in protocols if p.name == "3D"]
    assert 0.22 < len(three) / 300 < 0.44
    assert all(len(set(p.voxel)) == 1 for p in three)
    for protocol in (p for p in protocols if p.name == "2D"):
        assert 2.5 <= max(protocol.voxel) <= 8
        assert 0.8 * max(protocol.voxel) <= protocol.thickness <= max(protocol.voxel)
    axes = np.bincount([p.slice_axis for p in protocols if p.name == "2D"], minlength=3)
    assert axes.argmax() == 2
    assert axes.min() > 0


def test_noise_has_the_strength_of_the_protocol():
    image = np.full((40, 40, 40), 1.0, np.float32)
    quiet = Protocol("q", (1, 1, 1), 1, noise=0.05, bias=0.0)
    noisy = degrade(image, quiet, np.random.default_rng(0))  # constant^gamma stays 1
    assert noisy.std() == pytest.approx(0.05, rel=0.1)
    air = degrade(np.zeros_like(image), quiet, np.random.default_rng(0))
    assert air.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.05)  # Rayleigh


def test_deformation_keeps_classes_and_distances_together(tiny_head):
    moved = deform(tiny_head, np.random.default_rng(0))
    assert moved.tissue.shape == tiny_head.tissue.shape
    assert moved.tissue.dtype == np.uint8
    assert not np.array_equal(moved.tissue, tiny_head.tissue)
    before, after = (np.bincount(h.tissue.ravel(), minlength=18) for h in (tiny_head, moved))
    np.testing.assert_array_equal(before > 0, after > 0)
    big = before > 2000
    assert (np.abs(after[big] / before[big] - 1) < 0.6).all()
    lateral = moved.tissue == Tissue.LATERAL_VENTRICLE
    assert (moved.to_lateral[lateral] == 0).all()
    assert (moved.to_lateral[~lateral] > 0).all()
    cortex = moved.tissue == Tissue.CORTEX
    assert (moved.to_cortex[cortex] == 0).all()
    assert (moved.to_cortex[~cortex] > 0).all()


@pytest.mark.usefixtures("still")
def test_no_deformation_changes_nothing(tiny_head):
    moved = deform(tiny_head, np.random.default_rng(0))
    for one, other in zip(moved.maps, tiny_head.maps, strict=True):
        np.testing.assert_array_equal(one, other)


def test_ventricles_widen(tiny_head, still):
    still("VENTRICLES", 2.0)
    moved = [deform(tiny_head, np.random.default_rng(seed)) for seed in range(8)]
    before = (tiny_head.tissue == Tissue.LATERAL_VENTRICLE).sum()
    after = np.array([(head.tissue == Tissue.LATERAL_VENTRICLE).sum() for head in moved])
    assert after.min() >= before
    assert after.max() > 1.4 * before
    for head in moved:  # the surface is far and stays
        assert np.mean((head.to_surface <= 0) == (tiny_head.to_surface <= 0)) > 0.98


def test_atrophy_shrinks_the_brain(tiny_head, still):
    still("ATROPHY", 2.0)
    before = (tiny_head.tissue == Tissue.CSF).sum()
    after = [
        (deform(tiny_head, np.random.default_rng(seed)).tissue == Tissue.CSF).sum()
        for seed in range(6)
    ]
    assert min(after) >= 0.98 * before
    assert max(after) > 1.08 * before


def test_flip_mirrors_left_and_right(tiny_head, still):
    marked = tiny_head.tissue.copy()
    marked[:20][marked[:20] == Tissue.WHITE_MATTER] = Tissue.VESSEL
    head = replace(tiny_head, tissue=marked)
    still("MIRRORED", 0.5)
    found = [deform(head, np.random.default_rng(seed)).tissue for seed in range(8)]
    mirrored = [np.array_equal(t, marked[::-1]) for t in found]
    assert 0 < sum(mirrored) < 8
    assert all(m or np.array_equal(t, marked) for m, t in zip(mirrored, found, strict=True))


def test_scaling_changes_the_volume_as_expected(tiny_head, still):
    still("ROTATION", 20.0)
    turned = deform(tiny_head, np.random.default_rng(0))
    brain = [(h.to_surface <= 0).sum() for h in (tiny_head, turned)]
    assert brain[1] == pytest.approx(brain[0], rel=0.01)  # a rotation keeps it


def test_contrast_of_the_tissues(tiny_head):
    lesions = place_lesions(tiny_head, "HC", 0.0, np.random.default_rng(0))
    present = [tissue for tissue in Tissue if (tiny_head.tissue == tissue).any()]
    medians = {tissue: [] for tissue in present}
    for seed in range(8):
        image, _ = flair(tiny_head, lesions, np.random.default_rng(seed), free=False)
        assert image.min() >= 0
        for tissue in present:
            medians[tissue].append(np.median(image[tiny_head.tissue == tissue]))
    means = {tissue: np.mean(values) for tissue, values in medians.items()}
    assert means[Tissue.LATERAL_VENTRICLE] < 0.75 * means[Tissue.WHITE_MATTER]
    assert means[Tissue.WHITE_MATTER] < means[Tissue.CORTEX]
    assert means[Tissue.AIR] < 0.1
    assert set(TISSUE_RANGE) == set(Tissue)


def test_contrast_is_what_the_lesions_add(tiny_head):
    lesions = place_lesions(tiny_head, "MS", 10.0, np.random.default_rng(0))
    without = place_lesions(tiny_head, "HC", 0.0, np.random.default_rng(0))
    image, contrast = flair(tiny_head, lesions, np.random.default_rng(0))
    plain, nothing = flair(tiny_head, without, np.random.default_rng(0))
    np.testing.assert_allclose(image - plain, contrast, atol=1e-5)
    assert np.median(contrast[lesions.mask]) > 0.3
    assert not nothing.any()


def test_truth_holds_only_what_can_be_seen(tiny_head, monkeypatch):
    """A lesion as bright as its surroundings is in no rater's mask."""
    place = sample.place_lesions

    def dim(*args, **options):
        lesions = place(*args, **options)
        return replace(lesions, brightness=lesions.brightness * 0.6)

    def simulated():
        return simulate_scan(tiny_head, np.random.default_rng(3), load=10.0)

    seen = simulated()
    monkeypatch.setattr(sample, "place_lesions", dim)
    unseen = simulated()
    assert seen.lesion_mask.sum() > 100
    assert unseen.lesion_mask.sum() < 0.05 * seen.lesion_mask.sum()
    assert unseen.lesions.mask.sum() == seen.lesions.mask.sum()


def test_free_means_stay_below_lesions():
    rng = np.random.default_rng(0)
    means = np.array([tissue_means(rng, free=True) for _ in range(200)])
    assert (means[:, Tissue.WHITE_MATTER] == 1).all()
    solid = [Tissue.CORTEX, Tissue.DEEP_GREY, Tissue.CEREBELLAR_WHITE, Tissue.BRAINSTEM]
    assert means[:, solid].max() <= 1.4  # a lesion has 1.5 in the mean
    assert means[:, Tissue.CSF].max() < 0.8


@pytest.mark.parametrize("shape", [(12, 9, 17), (3, 20, 5), (7, 8, 9)])
def test_resize_is_trilinear(shape):
    """The same as torch's, up to rounding."""
    volume = np.random.default_rng(1).standard_normal((7, 8, 9)).astype(np.float32)
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(volume)[None, None], size=shape, mode="trilinear", align_corners=False
    )
    np.testing.assert_allclose(resize_linear(volume, shape), wanted[0, 0].numpy(), atol=1e-5)


def test_random_fields():
    volume = np.random.default_rng(0).random((6, 5, 4), dtype=np.float32)
    np.testing.assert_array_equal(resize_linear(volume, (6, 5, 4)), volume)
    assert resize_linear(np.stack([volume] * 2), (12, 10, 8)).shape == (2, 12, 10, 8)
    noise = smooth_noise((40, 40, 40), 10.0, np.random.default_rng(0), channels=3)
    assert noise.shape == (3, 40, 40, 40)
    assert np.abs(np.diff(noise, axis=1)).max() < 0.6  # smooth


def test_a_prepared_scan_has_less_of_the_bias_field(tiny_head, monkeypatch):
    """A share of its logarithm is taken away, as a bias correction would."""
    scan = simulate_scan(
        tiny_head, np.random.default_rng(2), load=2.0, protocol=replace(FINE, bias=0.3)
    )
    assert 0.1 < np.log(scan.bias).std() < 0.6
    prepared = []
    monkeypatch.setattr(sample, "array_to_cube", lambda image, *_: (prepared.append(image), None))
    shares = []
    for seed in range(6):
        _, brain, _ = sample.prepared_scan(scan, np.random.default_rng(seed), (48, 48, 48))
        field = np.log(scan.bias[brain])
        taken = np.log(scan.image[brain] / prepared[-1][brain]) / field
        assert np.ptp(taken[np.abs(field) > 0.1]) < 0.01
        shares.append(np.median(taken))
    assert min(shares) > 0.29
    assert max(shares) < 1.01
    assert np.ptp(shares) > 0.1


def test_training_cube(tiny_head):
    rng = np.random.default_rng(4)
    scan = simulate_scan(tiny_head, rng, protocol=THICK, load=4.0)
    image, lesions = training_cube(scan, rng, (48, 48, 48))
    assert image.shape == lesions.shape == (48, 48, 48)
    brain = image != 0
    assert abs(image[brain].mean()) < 1e-3
    assert (brain | (lesions == 0)).mean() > 0.999
    assert image[lesions > 0].mean() > 0.5  # z-scores: lesions are bright
    share = lesions.sum() / brain.sum()
    true = scan.lesion_mask.sum() / scan.brain_mask.sum()
    assert share == pytest.approx(true, rel=0.4)


def test_imperfect_masks_err_a_little(tiny_head):
    scan = simulate_scan(tiny_head, np.random.default_rng(0), protocol=FINE, load=0.0)
    volumes = []
    for seed in range(8):
        mask = imperfect_brain_mask(scan, np.random.default_rng(seed))
        overlap = 2 * (mask & scan.brain_mask).sum() / (mask.sum() + scan.brain_mask.sum())
        assert overlap > 0.75
        volumes.append(mask.sum())
    assert len(set(volumes)) == 8
    assert DISTANCE_STEP == 0.25


def test_large_leaks_lie_low_and_in_front(tiny_head):
    """Where the orbits and the skull base are; the vertex and the back stay clean."""
    scan = simulate_scan(tiny_head, np.random.default_rng(0), diagnosis="HC")
    place = np.max([_skull_base(scan, np.random.default_rng(seed)) for seed in range(8)], axis=0)
    levels = np.flatnonzero(scan.brain_mask.any(axis=(0, 1)))
    rows = np.flatnonzero(scan.brain_mask.any(axis=(0, 2)))
    assert 0.5 < place.max() <= 1
    assert place[:, :, (levels[0] + levels[-1]) // 2 + 1 :].max() == 0
    assert place[:, : rows[0] + (rows[-1] - rows[0]) // 4].max() == 0


def _brightest(draw, head):
    """Return the brightest of eight draws of a look-alike, and the distance to the ventricles."""
    lateral = head.to_lateral.astype(np.float32) * DISTANCE_STEP
    draws = [draw(head, lateral, np.random.default_rng(seed)) for seed in range(8)]
    return np.max(draws, axis=0), lateral


def test_horn_caps_lie_at_the_ends_of_the_ventricles(tiny_head):
    caps, lateral = _brightest(_horn_caps, tiny_head)
    rows = np.flatnonzero((tiny_head.tissue == Tissue.LATERAL_VENTRICLE).any(axis=(0, 2)))
    profile = caps.max(axis=(0, 2))
    assert profile[rows[[0, -1]]].min() > 0.1
    assert profile.max() <= 1
    assert caps[lateral > 6].max() == 0


def test_the_optic_radiation_lies_outside_of_the_occipital_horns_and_behind_them(tiny_head):
    streaks, _ = _brightest(_radiation, tiny_head)
    ventricle = tiny_head.tissue == Tissue.LATERAL_VENTRICLE
    rows = np.flatnonzero(ventricle.any(axis=(0, 2)))
    profile = streaks.max(axis=(0, 2))
    assert 0.1 < streaks.max() <= 0.4
    assert profile[rows[0]] > 0.1
    assert profile[rows[0]] > 2 * profile[rows[-1]]
    assert profile[rows[0] - 5] > 0.03
    for row in rows[: len(rows) // 2]:
        columns = np.flatnonzero(ventricle[:, row].any(axis=1))
        outside = streaks[: columns[0], row].max(), streaks[columns[-1] + 1 :, row].max()
        between = streaks[columns[0] + 4 : columns[-1] - 3, row].max(initial=0)
        assert min(outside) > 2 * between


def test_the_outer_wall_of_a_horn_goes_on_behind_it():
    ventricle = np.zeros((20, 30, 10), bool)
    for row in range(10, 25):
        ventricle[4 : 5 + (row - 10) // 3, row, 5] = True  # wider to the front
    tip, edge, level = _outer_wall(ventricle, 1, 1.0)
    assert (len(edge), tip) == (25, 10)
    np.testing.assert_allclose(level, 5)
    assert np.all(np.diff(edge) > 0)
    assert 0 < edge[0] < edge[10] == pytest.approx(4, abs=0.6)
    _, inner, _ = _outer_wall(ventricle, -1, 1.0)
    np.testing.assert_allclose(inner, 4)
    assert _outer_wall(np.zeros_like(ventricle), 1, 1.0) is None


def test_callosum_and_fornix_are_bright_near_the_midline_alone(tiny_head):
    bright, lateral = _brightest(_midline, tiny_head)
    ventricle = tiny_head.tissue == Tissue.LATERAL_VENTRICLE
    middle = np.flatnonzero(ventricle.any(axis=(1, 2))).mean()
    away = np.abs(np.arange(bright.shape[0]) - middle) * tiny_head.spacing
    assert bright[away < 3].max() > 0.1
    assert bright[away > 11].max() == 0
    assert bright[lateral > 17].max() == 0


def _added(head):
    """Return what 16 draws of all look-alikes add to a black image."""
    images = []
    for seed in range(16):
        image = np.zeros(head.tissue.shape, np.float32)
        _lesion_mimics(head, image, np.random.default_rng(seed))
        images.append(image)
    return np.stack(images)


def test_flow_is_bright_in_ventricles_and_cisterns_but_not_in_the_sulci(tiny_head):
    added = _added(tiny_head)
    far = tiny_head.to_lower * DISTANCE_STEP >= 25
    sulci = (tiny_head.tissue == Tissue.CSF) & far
    assert sulci.any()
    assert added[:, sulci].max() == 0
    assert added[:, (tiny_head.tissue == Tissue.CSF) & ~far].max() > 0.2
    assert added[:, tiny_head.tissue == Tissue.LATERAL_VENTRICLE].max() > 0.2


def test_what_is_bright_around_the_lateral_ventricles_does_not_add_up(tiny_head):
    """A rim at a cap at a septum is as bright as the brightest of them, below a plain lesion."""
    white = (tiny_head.tissue == Tissue.WHITE_MATTER) & (tiny_head.to_lower * DISTANCE_STEP > 2)
    brightest = _added(tiny_head)[:, white].max(axis=1)
    assert 0.2 < np.median(brightest) < 0.5
    assert brightest.max() < 0.7


def test_a_thin_line_outlines_the_lower_ventricles(tiny_head):
    added = _added(tiny_head)[:, tiny_head.tissue == Tissue.BRAINSTEM]
    lower = tiny_head.to_lower[tiny_head.tissue == Tissue.BRAINSTEM] * DISTANCE_STEP
    assert (added[:, lower <= 1].max(axis=1) > 0).all()
    assert added[:, lower > 2].max() == 0


def test_a_head_without_ventricles_has_no_streaks(tiny_head):
    solid = replace(
        tiny_head,
        tissue=np.where(
            tiny_head.tissue == Tissue.LATERAL_VENTRICLE, Tissue.WHITE_MATTER, tiny_head.tissue
        ).astype(np.uint8),
    )
    lateral = np.full(solid.tissue.shape, 50, np.float32)
    for draw in (_radiation, _midline, _horn_caps):
        assert not draw(solid, lateral, np.random.default_rng(0)).any()


def test_ringing_overshoots_at_edges_and_nowhere_else():
    image = np.zeros((64, 64, 6), np.float32)
    image[16:48, 16:48] = 1.0
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(k_space_artefacts(image, 2, rng), image, atol=1e-5)
    ringing = k_space_artefacts(image, 2, rng, kept=0.6)
    assert 1.05 < ringing.max() < 1.25  # the overshoot of Gibbs
    assert abs(ringing[28:36, 28:36] - 1).max() < 0.05
    np.testing.assert_allclose(ringing[..., 0], ringing[..., 5], atol=1e-6)  # slice by slice


def test_motion_makes_ghosts_along_the_phase_axis_only():
    image = np.zeros((64, 64, 6), np.float32)
    image[24:40, 24:40] = 1.0
    moved = k_space_artefacts(image, 2, np.random.default_rng(1), motion=1.5)
    assert moved[24:40, :12].max() > 0.01
    assert moved[:12].max() < 1e-5
    assert moved.min() >= 0
    centre = (moved.sum(axis=(0, 2)) * np.arange(64)).sum() / moved.sum()
    assert centre == pytest.approx(31.5, abs=1.0)


@pytest.mark.usefixtures("still")
def test_a_scan_of_a_coarser_head_lies_where_the_fine_one_does(tiny_head):
    rng = (np.random.default_rng(3) for _ in range(2))
    one, other = (
        simulate_scan(head, next(rng), load=0.0, protocol=FINE)
        for head in (tiny_head, tiny_head.resampled(1.5))
    )
    places = [
        (scan.affine[:3, :3] @ np.argwhere(scan.brain_mask).mean(axis=0)) + scan.affine[:3, 3]
        for scan in (one, other)
    ]
    np.testing.assert_allclose(*places, atol=0.5)
    volumes = [scan.brain_mask.sum() * scan.zooms.prod() for scan in (one, other)]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.05)
