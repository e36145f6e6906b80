"""Swin blocks: windows, masks, padding, parity with MONAI."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msnmo_bids.model import swin
from msnmo_bids.model.swin import (
    SwinBlock,
    WindowAttention,
    attention_mask,
    join_windows,
    split_windows,
)

SIDES = st.tuples(*[st.integers(1, 3)] * 3)


@settings(deadline=None)
@given(counts=SIDES, side=st.integers(1, 3), batch=st.integers(1, 2))
def test_joining_undoes_splitting(counts, side, batch):
    grid = tuple(count * side for count in counts)
    tokens = torch.arange(batch * side**3 * counts[0] * counts[1] * counts[2] * 2)
    tokens = tokens.reshape(batch, *grid, 2)
    windows = split_windows(tokens, side)
    assert windows.shape == (batch * counts[0] * counts[1] * counts[2], side**3, 2)
    assert torch.equal(windows[0].reshape(side, side, side, 2), tokens[0, :side, :side, :side])
    assert torch.equal(join_windows(windows, side, grid), tokens)


@pytest.mark.parametrize("seed", [0, 1])
def test_attention_equals_monai(seed):
    from monai.networks.nets.swin_unetr import WindowAttention as MonaiAttention

    torch.manual_seed(seed)
    ours = WindowAttention(16, 4, (3, 4, 5))
    theirs = MonaiAttention(16, 4, (3, 4, 5), qkv_bias=True)
    torch.nn.init.normal_(ours.relative_position_bias_table)
    assert theirs.load_state_dict(ours.state_dict(), strict=False).unexpected_keys == []
    windows = torch.randn(6, 60, 16)
    torch.testing.assert_close(ours(windows), theirs(windows, None))
    allowed = torch.rand(3, 60, 60) > 0.5
    allowed |= torch.eye(60, dtype=torch.bool)
    added = torch.zeros(3, 60, 60).masked_fill(~allowed, -1e9)
    torch.testing.assert_close(ours(windows, allowed), theirs(windows, added))


@pytest.mark.parametrize(("grid", "side", "step"), [((10, 10, 10), 5, 2), ((4, 8, 6), 2, 1)])
def test_shift_mask_equals_monai(grid, side, step):
    from monai.networks.nets.swin_unetr import compute_mask

    theirs = compute_mask(list(grid), (side,) * 3, (step,) * 3, "cpu") == 0
    ours = torch.from_numpy(attention_mask(grid, side, (step,) * 3))
    assert torch.equal(ours, theirs)


def test_no_mask_where_none_is_needed():
    assert attention_mask((10, 10, 10), 5, (0, 0, 0)) is None


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("grid", [(2, 2, 2), (3, 4, 7), (5, 6, 9)])
def test_padding_does_not_leak(monkeypatch, grid, shifted):
    block = SwinBlock(8, 2, 5, shifted=shifted, mlp_ratio=2.0).eval()
    tokens = torch.randn(2, *grid, 8)
    expected = block(tokens)
    pad = swin.F.pad
    monkeypatch.setattr(swin.F, "pad", lambda values, ends: pad(values, ends, value=37.0))
    torch.testing.assert_close(block(tokens), expected)
    assert expected.isfinite().all()


@given(grid=st.tuples(*[st.integers(1, 6)] * 3), side=st.integers(1, 4), shifted=st.booleans())
@settings(deadline=None, max_examples=40)
def test_a_token_attends_its_window_and_no_more(grid, side, shifted):
    """Compare the block's reach with the definition, token by token."""
    block = SwinBlock(2, 1, side, shifted=shifted, mlp_ratio=1.0)
    block.attention.forward = _window_mean(block.attention)
    # The identity of each token travels as a one-hot vector through a mean over its window.
    count = grid[0] * grid[1] * grid[2]
    tokens = torch.eye(count).reshape(1, *grid, count)
    reached = block._attend(tokens).reshape(count, count) > 0
    assert torch.equal(reached, _reach(grid, side, shifted))


def _window_mean(attention):
    def forward(windows, mask):
        allowed = torch.ones(len(windows), windows.shape[1], windows.shape[1])
        if mask is not None:
            allowed = mask.repeat(len(windows) // len(mask), 1, 1).float()
        return allowed @ windows

    return forward


def _reach(grid, side, shifted):
    """Tokens are in one window if their cells, counted from the shifted origin, agree."""
    position = torch.cartesian_prod(*map(torch.arange, grid)).reshape(-1, 3)
    cells = []
    for axis, length in enumerate(grid):
        step = side // 2 if shifted and length > side else 0
        cells.append((position[:, axis] - step).div(side, rounding_mode="floor"))
    cells = torch.stack(cells, dim=1)
    return (cells[:, None] == cells[None]).all(dim=2)


def test_shift_lets_windows_meet():
    torch.manual_seed(0)
    tokens = torch.randn(1, 4, 4, 4, 4, requires_grad=True)
    for shifted, meets in ((False, False), (True, True)):
        block = SwinBlock(4, 1, 2, shifted=shifted, mlp_ratio=1.0)
        (grad,) = torch.autograd.grad(block(tokens)[0, 1, 1, 1].sum(), tokens)
        assert bool(grad[0, 2, 2, 2].abs().sum() > 0) is meets


def test_mask_made_under_inference_mode_serves_training():
    attention_mask.cache_clear()
    block = SwinBlock(4, 1, 2, shifted=True, mlp_ratio=1.0)
    with torch.inference_mode():
        block(torch.randn(1, 3, 3, 3, 4))
    block(torch.randn(1, 3, 3, 3, 4)).sum().backward()
    assert block.attention.qkv.weight.grad.abs().sum() > 0
