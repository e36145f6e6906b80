"""Left is left, outlines lie on lesions, proportions are true, files are equal and small."""

from __future__ import annotations

import base64
import re
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import nibabel as nib
import numpy as np
import pytest
from heads import BLOCK, BRAIN_RADII, GEOMETRIES, Head, outlines, pictures, texts, write_head
from hypothesis import given, settings
from hypothesis import strategies as st

from msnmo_bids.reports import figures
from msnmo_bids.reports.panels import BRAIN_COLOUR, LESION_COLOUR, TEXT_COLOUR, shrink
from msnmo_bids.reports.slices import (
    Volume,
    area_per_section,
    bounding_box,
    evenly,
    load_ras,
    section,
    spread,
    window,
)

AXIAL, CORONAL, SAGITTAL = range(3)
MIDDLE, END = 150, 254  # grey values between brain and block, and the block's


def lesions_svg(head: Head, folder: Path) -> str:
    out = folder / "figures" / "lesions.svg"
    assert figures.lesions_figure(head.flair, head.lesions, head.labels, out) == out
    return out.read_text()


@pytest.fixture(params=GEOMETRIES)
def geometry(request: pytest.FixtureRequest) -> str:
    return request.param


def test_left_is_at_the_letter_l_and_front_at_the_letter_a(geometry: str, tmp_path: Path) -> None:
    svg = lesions_svg(write_head(tmp_path, geometry), tmp_path)
    drawn = pictures(svg)
    left, right, front = texts(svg, "L"), texts(svg, "R"), texts(svg, "A")
    for number in (AXIAL, CORONAL):
        x = np.mean(drawn[number].extent(MIDDLE)[:2])
        assert abs(x - left[number][0]) < abs(x - right[number][0])
    x = np.mean(drawn[SAGITTAL].extent(MIDDLE)[:2])
    assert abs(x - front[0][0]) < abs(x - texts(svg, "P")[0][0])


def test_front_and_top_are_up(geometry: str, tmp_path: Path) -> None:
    drawn = pictures(lesions_svg(write_head(tmp_path, geometry), tmp_path))
    for number in (AXIAL, CORONAL, SAGITTAL):
        _, _, top, bottom = drawn[number].extent(10)
        _, _, block_top, block_bottom = drawn[number].extent(MIDDLE)
        assert (block_top + block_bottom) / 2 < (top + bottom) / 2


def test_the_outline_is_around_the_lesion(geometry: str, tmp_path: Path) -> None:
    svg = lesions_svg(write_head(tmp_path, geometry), tmp_path)
    paths = outlines(svg, LESION_COLOUR)
    marked = pictures(svg)[3:]
    assert len(paths) >= 3
    for picture, path in zip(marked[:3], paths[:3], strict=True):
        # Edges are on the edges of the bright pixels: not one pixel off.
        np.testing.assert_allclose(
            [path[:, 0].min(), path[:, 0].max(), path[:, 1].min(), path[:, 1].max()],
            picture.extent(MIDDLE),
            atol=0.05 * min(picture.scale),
        )


def test_proportions_are_those_of_the_head(geometry: str, tmp_path: Path) -> None:
    head = write_head(tmp_path, geometry, empty=True)
    drawn = pictures(lesions_svg(head, tmp_path))
    for number, (wide, tall) in enumerate(((0, 1), (0, 2), (1, 2))):
        left, right, top, bottom = drawn[number].extent(20)
        # Within a voxel at both ends, which are up to 7 mm here, and turned axes.
        expected = BRAIN_RADII[wide] / BRAIN_RADII[tall]
        assert (right - left) / (bottom - top) == pytest.approx(expected, rel=0.12)


def test_sections_show_most_lesion(tmp_path: Path) -> None:
    svg = lesions_svg(write_head(tmp_path), tmp_path)
    for name, axis in (("z", 2), ("y", 1), ("x", 0)):
        positions = [float(n) for n in re.findall(rf">{name} = (-?\d+) mm<", svg)]
        assert BLOCK[axis, 0] <= positions[0] <= BLOCK[axis, 1]


def test_voxels_are_embedded_as_they_are(tmp_path: Path) -> None:
    head = write_head(tmp_path, "LPS anisotropic")
    drawn = pictures(lesions_svg(head, tmp_path))
    ratio = drawn[CORONAL].scale[1] / drawn[CORONAL].scale[0]
    assert ratio == pytest.approx(7 / 1.5)


def test_convention_voxels_and_tilt_are_stated(tmp_path: Path) -> None:
    assert "Neurological convention" in lesions_svg(write_head(tmp_path), tmp_path)
    svg = lesions_svg(write_head(tmp_path, "oblique"), tmp_path)
    assert "oblique by 1" in svg
    assert "Voxels 2 × 2 × 5 mm" in svg


def test_without_lesions_the_figure_says_so(tmp_path: Path) -> None:
    svg = lesions_svg(write_head(tmp_path, empty=True), tmp_path)
    assert "no lesion found" in svg
    assert not outlines(svg, LESION_COLOUR)


def test_lesions_carry_their_numbers(tmp_path: Path) -> None:
    assert texts(lesions_svg(write_head(tmp_path), tmp_path), "1")


def test_brain_mask_is_outlined_in_all_planes(geometry: str, tmp_path: Path) -> None:
    head = write_head(tmp_path, geometry)
    svg = figures.brain_mask_figure(head.flair, head.brain, tmp_path / "mask.svg").read_text()
    paths = outlines(svg, BRAIN_COLOUR)
    assert len(paths) == len(pictures(svg)) == 8
    assert texts(svg, "P")
    for picture, path in zip(pictures(svg), paths, strict=True):
        extent = picture.extent(20)
        assert path[:, 0].min() == pytest.approx(extent[0], abs=0.1)
        assert path[:, 1].max() == pytest.approx(extent[3], abs=0.1)


def test_an_empty_brain_mask_can_be_drawn(tmp_path: Path) -> None:
    head = write_head(tmp_path)
    image = nib.load(head.brain)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), head.brain)
    svg = figures.brain_mask_figure(head.flair, head.brain, tmp_path / "mask.svg").read_text()
    assert not outlines(svg, BRAIN_COLOUR)
    assert pictures(svg)


def test_cam_has_a_row_a_class_and_one_symmetric_scale(tmp_path: Path) -> None:
    head = write_head(tmp_path)
    out = tmp_path / "cam.svg"
    svg = figures.cam_figure(head.flair, head.lesions, head.cams, out).read_text()
    assert "Class activation, MS" in svg
    assert "Class activation, NMOSD" in svg
    # In the block MS has 1.5 and NMOSD -1, so that each is 1.25 away from their mean.
    assert texts(svg, "1.25") or texts(svg, "1.3") or texts(svg, "1.2")
    assert not texts(svg, "1.5")
    assert len(outlines(svg, TEXT_COLOUR)) == 6
    assert len(pictures(svg)) == 13


def test_cam_colours_follow_the_sign(tmp_path: Path) -> None:
    head = write_head(tmp_path)
    svg = figures.cam_figure(head.flair, head.lesions, head.cams, tmp_path / "cam.svg").read_text()
    heats = [image for image in _colours(svg) if image.shape[2] == 4]
    ms, nmosd = (_strongest(heats[number]) for number in (0, 3))
    assert ms[0] > ms[1]  # pink: for the class
    assert nmosd[1] > nmosd[0]  # green: against it


def test_what_all_classes_share_is_not_drawn(tmp_path: Path) -> None:
    head = write_head(tmp_path)
    plain = figures.cam_figure(head.flair, head.lesions, head.cams, tmp_path / "plain.svg")
    shifted = {}
    for name, path in head.cams.items():
        image = nib.load(path)
        shifted[name] = tmp_path / f"shifted-{name}.nii"
        nib.save(
            nib.Nifti1Image(image.get_fdata(dtype=np.float32) + 4, image.affine), shifted[name]
        )
    moved = figures.cam_figure(head.flair, head.lesions, shifted, tmp_path / "moved.svg")
    assert moved.read_bytes() == plain.read_bytes()


def test_cam_of_nothing_can_be_drawn(tmp_path: Path) -> None:
    head = write_head(tmp_path, empty=True)
    flat = {"MS": head.lesions}
    figures.cam_figure(head.flair, head.lesions, flat, tmp_path / "cam.svg")
    assert (tmp_path / "cam.svg").stat().st_size


def test_bias_figure_shows_the_field(tmp_path: Path) -> None:
    head = write_head(tmp_path)
    image = nib.load(head.flair)
    x = np.linspace(-0.4, 0.4, image.shape[0])[:, None, None]
    biased = tmp_path / "raw.nii"
    nib.save(nib.Nifti1Image(image.get_fdata() * np.exp(x), image.affine), biased)
    svg = figures.bias_figure(biased, head.flair, tmp_path / "bias.svg").read_text()
    for text in ("before / after", "after (brain only)", "estimated bias field (factor)"):
        assert text in svg
    low, high = (float(t) for t in re.findall(r">([01]\.\d+)<", svg)[-2:])
    assert low == pytest.approx(1 / high, rel=0.05)
    assert 1.2 < high < 1.6


def test_bias_figure_without_correction(tmp_path: Path) -> None:
    head = write_head(tmp_path)
    svg = figures.bias_figure(head.flair, head.flair, tmp_path / "bias.svg").read_text()
    assert texts(svg, "1")


def test_equal_input_gives_equal_files_whatever_matplotlib_is_told(tmp_path: Path) -> None:
    head = write_head(tmp_path)
    one = lesions_svg(head, tmp_path)
    with mpl.rc_context({"font.size": 31, "svg.fonttype": "path", "path.sketch": (9, 9, 9)}):
        other = lesions_svg(head, tmp_path)
        assert mpl.rcParams["font.size"] == 31
    assert one == other
    assert "<dc:date>" not in one


def test_noise_stays_under_a_megabyte(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = rng.uniform(50, 200, (512, 512, 12)).astype(np.float32)
    affine = np.diag([0.4, 0.4, 6, 1.0])
    files = []
    for name, array in (("flair", data), ("mask", (data > 199.9).astype(np.int16))):
        files.append(tmp_path / f"{name}.nii")
        nib.save(nib.Nifti1Image(array, affine), files[-1])
    figures.lesions_figure(files[0], files[1], files[1], tmp_path / "lesions.svg")
    assert (tmp_path / "lesions.svg").stat().st_size < 1_000_000


def test_the_window_ignores_a_few_extreme_voxels() -> None:
    values = np.linspace(0, 100, 10_000)
    values[:3] = 1e6
    assert window(values)[1] < 101
    assert window(np.full(5, 3.0)) == (3.0, 4.0)
    tissue = np.concatenate([np.zeros(40), np.linspace(80, 90, 1000), np.full(10, 120.0)])
    low, high = window(tissue)
    assert (np.median(tissue) - low) / (high - low) == pytest.approx(0.5, abs=0.1)
    assert low < 81
    assert window(np.array([])) == (0.0, 1.0)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(4, 30))
def test_shrinking_keeps_the_mean(rows: int, columns: int, most: int) -> None:
    image = np.full((rows, columns), 0.25)
    small = shrink(image, most)
    assert max(small.shape) <= most
    np.testing.assert_allclose(small, 0.25)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=5, max_size=40), st.integers(1, 6), st.integers(1, 5))
def test_spread_sections_keep_their_distance(filled: list[bool], count: int, gap: int) -> None:
    mask = np.zeros((2, 2, len(filled)), dtype=bool)
    mask[..., filled] = True
    chosen = spread(mask, np.ones_like(mask), "axial", count, gap)
    assert 1 <= len(chosen) <= count
    assert all(b - a >= gap for a, b in pairwise(chosen))
    if mask.any():
        assert any(area_per_section(mask, "axial")[chosen])


@settings(deadline=None)
@given(st.integers(0, 19), st.integers(1, 20), st.integers(1, 8))
def test_even_sections_are_inside(first: int, length: int, count: int) -> None:
    mask = np.zeros((20 + length, 3, 3), dtype=bool)
    mask[first : first + length] = True
    cuts = evenly(mask, "sagittal", count)
    assert len(cuts) <= count
    assert all(mask[cut].any() for cut in cuts)


def test_a_section_of_a_marked_corner() -> None:
    data = np.zeros((4, 5, 6))
    data[0, -1, 2] = 1  # left, front
    whole = bounding_box(np.zeros(data.shape, bool), (1, 1, 1))
    assert section(data, "axial", 2, whole)[0, 0] == 1
    assert section(data, "axial", 2, whole).shape == (5, 4)


def test_bounding_box_has_a_margin_and_stays_inside() -> None:
    mask = np.zeros((20, 20, 20), dtype=bool)
    mask[10, 1, 5:8] = True
    box = bounding_box(mask, (1.0, 2.0, 5.0), margin_mm=4)
    assert box == (slice(6, 15), slice(0, 4), slice(4, 9))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_loading_puts_axes_right_forward_up(name: str, tmp_path: Path) -> None:
    volume = load_ras(write_head(tmp_path, name).flair)
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    assert isinstance(volume, Volume)
    assert (volume.obliquity > 5) == (name == "oblique")


def _colours(svg: str) -> list[np.ndarray]:
    import io

    from PIL import Image

    found = re.findall(r"data:image/png;base64,([^\"]+)", svg)
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]
    return [np.atleast_3d(np.asarray(image)) for image in images]


def _strongest(rgba: np.ndarray) -> np.ndarray:
    row, column = np.unravel_index(np.argmax(rgba[..., 3]), rgba.shape[:2])
    return rgba[row, column].astype(int)
