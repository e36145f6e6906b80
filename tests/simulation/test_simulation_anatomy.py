"""Heads from label maps."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msnmo_bids.errors import BadInputError
from msnmo_bids.simulation import assets as mni
from msnmo_bids.simulation.anatomy import (
    FREESURFER_TISSUE,
    Tissue,
    load_head,
    load_heads,
    whole_heads,
)

LABEL_OF = {tissue: label for label, tissue in FREESURFER_TISSUE.items()} | {Tissue.AIR: 0}


@pytest.fixture
def label_map(tmp_path, tiny_head) -> Path:
    """The tiny head with FreeSurfer's labels, in LPS order."""
    lookup = np.zeros(len(Tissue), np.int16)
    for tissue, label in LABEL_OF.items():
        lookup[tissue] = label
    labels = lookup[tiny_head.tissue][::-1, ::-1]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = tiny_head.affine[:3, 3] + [63, 63, 0]
    path = tmp_path / "maps" / "head_1.nii.gz"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(labels, affine), path)
    return path


def test_load_head(label_map, tiny_head):
    head = load_head(label_map)
    assert head.name == "head_1"
    box = tuple(slice(a.min(), a.max() + 1) for a in np.nonzero(tiny_head.tissue))
    np.testing.assert_array_equal(head.tissue, tiny_head.tissue[box])
    start = [s.start for s in box]
    np.testing.assert_allclose(head.affine[:3, 3], tiny_head.affine[:3, 3] + start)


def test_other_voxel_sizes_keep_the_place(label_map, tmp_path):
    """Twice the voxel size: resampled to 1 mm around the same centre."""
    fine = nib.load(label_map)
    affine = fine.affine.copy()
    affine[:3, :3] *= 2
    path = tmp_path / "coarse.nii"
    nib.save(nib.Nifti1Image(np.asarray(fine.dataobj)[::2, ::2, ::2], affine), path)
    head = load_head(path)
    np.testing.assert_allclose(nib.affines.voxel_sizes(head.affine), 1)
    lateral = np.argwhere(head.tissue == Tissue.LATERAL_VENTRICLE)
    coarse = nib.load(path)
    labels = np.asarray(coarse.dataobj) == LABEL_OF[Tissue.LATERAL_VENTRICLE]
    np.testing.assert_allclose(
        nib.affines.apply_affine(head.affine, lateral.mean(axis=0)),
        nib.affines.apply_affine(coarse.affine, np.argwhere(labels).mean(axis=0)),
        atol=1e-6,
    )
    assert len(lateral) == 8 * labels.sum()


@pytest.mark.parametrize(
    ("tissue", "text"),
    [(Tissue.WHITE_MATTER, "white matter"), (Tissue.LATERAL_VENTRICLE, "ventricle")],
)
def test_map_without_a_needed_class(label_map, tissue, text):
    image = nib.load(label_map)
    labels = np.asarray(image.dataobj).copy()
    labels[labels == LABEL_OF[tissue]] = 24
    nib.save(nib.Nifti1Image(labels, image.affine), label_map)
    with pytest.raises(BadInputError, match=text) as caught:
        load_head(label_map)
    assert str(label_map) in str(caught.value)


def test_load_heads_with_a_cache_gives_the_same(label_map, tmp_path):
    plain = load_heads(label_map.parent)
    first = load_heads(label_map.parent, tmp_path / "cache")
    cached = load_heads(label_map.parent, tmp_path / "cache")
    [kept] = (tmp_path / "cache").iterdir()
    assert kept.name.startswith("head_1.nii.gz-")
    for head in (first[0], cached[0]):
        assert head.name == plain[0].name
        np.testing.assert_array_equal(head.affine, plain[0].affine)
        for one, other in zip(head.maps, plain[0].maps, strict=True):
            np.testing.assert_array_equal(one, other)


def test_another_map_of_the_same_name_is_another_head(label_map, tmp_path):
    load_heads(label_map.parent, tmp_path / "cache")
    image = nib.load(label_map)
    nib.save(image.slicer[2:], label_map)
    load_heads(label_map.parent, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("content", [b"no image", b"\x1f\x8b\x08\x00"])
def test_a_map_that_cannot_be_read(tmp_path, content):
    (tmp_path / "head.nii.gz").write_bytes(content)
    with pytest.raises(BadInputError, match=r"head\.nii\.gz"):
        load_heads(tmp_path)
    with pytest.raises(BadInputError, match="no such folder"):
        load_heads(tmp_path / "missing")


def test_empty_folder(tmp_path):
    with pytest.raises(BadInputError, match="no label map"):
        load_heads(tmp_path)


def test_whole_heads_are_cut_under_the_brain(label_map, monkeypatch):
    monkeypatch.setattr("msnmo_bids.simulation.anatomy._NECK", 3.0)
    (cut,) = whole_heads(label_map.parent, 1)
    lowest = np.flatnonzero((cut.to_surface <= 0).any(axis=(0, 1)))[0]
    assert lowest == 3
    uncut = load_head(label_map)
    top = [h.affine[:3, :3] @ h.tissue.shape + h.affine[:3, 3] for h in (cut, uncut)]
    np.testing.assert_allclose(*top)


def test_crop_keeps_a_margin_and_the_place(tiny_head):
    cropped = tiny_head.cropped(margin=2)
    brain = cropped.to_surface <= 0
    assert brain.sum() == (tiny_head.to_surface <= 0).sum()
    np.testing.assert_array_equal([a.min() for a in np.nonzero(brain)], 2)
    shift = cropped.affine[:3, 3] - tiny_head.affine[:3, 3]
    index = np.argwhere(brain)[0]
    assert cropped.tissue[tuple(index)] == tiny_head.tissue[tuple((index + shift).astype(int))]


def test_resampled_head_keeps_place_and_volumes(tiny_head):
    assert tiny_head.resampled(1.0) is tiny_head
    coarse = tiny_head.resampled(1.6)
    assert coarse.spacing == pytest.approx(1.6)
    assert coarse.tissue.shape == (40, 40, 40)
    for kind in (Tissue.WHITE_MATTER, Tissue.LATERAL_VENTRICLE, Tissue.SCALP):
        one, other = tiny_head.tissue == kind, coarse.tissue == kind
        assert other.sum() * 1.6**3 == pytest.approx(one.sum(), rel=0.1)
        centres = [
            nib.affines.apply_affine(head.affine, np.argwhere(mask)).mean(axis=0)
            for head, mask in ((tiny_head, one), (coarse, other))
        ]
        np.testing.assert_allclose(*centres, atol=0.3)


def test_the_mni_head_can_have_another_size(tiny_head, monkeypatch):
    monkeypatch.setattr(mni, "mni_tissue", lambda: (tiny_head.tissue, tiny_head.affine.copy()))
    whole, person = mni.mni_head(), mni.mni_head(0.75)
    volumes = [(head.to_surface <= 0).sum() for head in (whole, person)]
    np.testing.assert_allclose(volumes[1] / volumes[0], 0.75**3, rtol=0.03)
    places = [
        nib.affines.apply_affine(
            head.affine, np.argwhere(head.tissue == Tissue.LATERAL_VENTRICLE).mean(axis=0)
        )
        for head in (whole, person)
    ]
    np.testing.assert_allclose(places[1], 0.75 * places[0], atol=0.3)
