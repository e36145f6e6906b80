"""Swin blocks over a grid of tokens: attention within windows, then within shifted windows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Grid = tuple[int, ...]  # (D, H, W)


class SwinBlock(nn.Module):
    """One Swin block of a token grid (Liu et al., 2021, in three dimensions).

    ``x + Attention(LN(x))`` within windows, then ``x + MLP(LN(x))``, whose hidden width is
    `mlp_ratio` times the channels of a token. A shifted block rolls the grid by half a window (of
    `window_size` tokens per side), so that tokens of neighbouring windows meet.

    Sides that are not a multiple of the window are padded at their end; no real token attends a
    padded one. For an image of 160 the grid is 10x10x10, which is 2x2x2 windows of 5x5x5 and no
    padding; for 32 it is 2x2x2, padded to one window, of which 8 of 125 tokens are real. Where one
    window covers an axis, a shift would only cut that window: the axis is not shifted.
    """

    def __init__(
        self, channels: int, heads: int, window_size: int, *, shifted: bool, mlp_ratio: float
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, (window_size,) * 3)
        self.norm2 = nn.LayerNorm(channels)
        hidden = int(channels * mlp_ratio)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(B, D, H, W, C)`` to ``(B, D, H, W, C)``."""
        tokens = tokens + self._attend(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))

    def _attend(self, tokens: Tensor) -> Tensor:
        grid = tuple(tokens.shape[1:4])
        step = self.window_size // 2 if self.shifted else 0
        shift = tuple(step if side > self.window_size else 0 for side in grid)
        padded = _padded_grid(grid, self.window_size)
        mask = attention_mask(grid, self.window_size, shift)
        ends = [size - side for size, side in zip(padded, grid, strict=True)]
        tokens = F.pad(tokens, (0, 0, 0, ends[2], 0, ends[1], 0, ends[0]))
        tokens = tokens.roll([-step for step in shift], (1, 2, 3))
        windows = split_windows(tokens, self.window_size)
        mask_tensor = None if mask is None else torch.from_numpy(mask).to(tokens.device)
        windows = self.attention(windows, mask_tensor)
        tokens = join_windows(windows, self.window_size, padded)
        return tokens.roll(shift, (1, 2, 3))[:, : grid[0], : grid[1], : grid[2]]


class WindowAttention(nn.Module):
    """Multi-head self attention within a window, with a relative position bias.

    ``softmax(q k^T / sqrt(C / heads) + bias) v``; the bias is looked up by the offset from one
    token to another: for a window of 5x5x5 there are 9x9x9 = 729 offsets. The heads divide the C
    channels of a token.
    """

    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int, window: Sequence[int]) -> None:
        super().__init__()
        self.heads = heads
        offsets = int(np.prod([2 * side - 1 for side in window]))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, heads))
        self.register_buffer(
            "relative_position_index", _relative_position_index(window), persistent=False
        )
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, windows: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend within each window: ``(B * N, T, C)`` of N windows, T tokens per window.

        `mask`, ``(N, T, T)`` of bool, says whether the second token may be attended by the first.
        """
        total, tokens, channels = windows.shape
        qkv = self.qkv(windows).reshape(total, tokens, 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        bias = bias.reshape(1, 1, tokens, tokens, self.heads).permute(0, 1, 4, 2, 3)
        if mask is not None:
            bias = bias.masked_fill(~mask[None, :, None], float("-inf"))
            bias = bias.expand(total // len(mask), -1, -1, -1, -1)
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias.flatten(0, 1).to(query.dtype)
        )
        return self.proj(attended.transpose(1, 2).reshape(total, tokens, channels))


def split_windows(tokens: Tensor, side: int) -> Tensor:
    """Cut ``(B, D, H, W, C)`` into windows ``(B * N, side**3, C)``; `side` divides the grid."""
    batch, depth, height, width, channels = tokens.shape
    cut = tokens.reshape(
        batch, depth // side, side, height // side, side, width // side, side, channels
    )
    return cut.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, side**3, channels)


def join_windows(windows: Tensor, side: int, grid: Grid) -> Tensor:
    """Undo `split_windows`: ``(B * N, side**3, C)`` back to ``(B, *grid, C)``."""
    depth, height, width = (length // side for length in grid)
    cut = windows.reshape(-1, depth, height, width, side, side, side, windows.shape[-1])
    return cut.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, *grid, windows.shape[-1])


@lru_cache(maxsize=32)
def attention_mask(grid: Grid, side: int, shift: Grid) -> np.ndarray | None:
    """Return which token may attend which, within each window of a padded and shifted grid.

    `grid` has the sides of the token grid before padding, `side` is that of the window, `shift` the
    roll of each axis. The result is ``(N, side**3, side**3)`` of bool; None if every token may
    attend its whole window. A real token attends the real tokens that were its neighbours before
    the roll; a padded token attends itself besides, or its softmax would be empty.
    """
    padded = _padded_grid(grid, side)
    if padded == grid and not any(shift):
        return None
    # An array, no tensor: one made under inference_mode could not be used in training.
    region = np.zeros(padded, dtype=np.int64)
    for number, box in enumerate(product(*map(_axis_regions, padded, (side,) * 3, shift))):
        region[box] = number
    real = np.zeros(padded, dtype=bool)
    real[: grid[0], : grid[1], : grid[2]] = True
    real = np.roll(real, [-step for step in shift], (0, 1, 2))
    region, real = (_split_array(values, side) for values in (region, real))
    allowed = (region[:, :, None] == region[:, None, :]) & real[:, None, :]
    return allowed | np.eye(side**3, dtype=bool)


def _axis_regions(length: int, side: int, step: int) -> list[slice]:
    """Parts of a rolled axis that were not neighbours before the roll."""
    if not step:
        return [slice(None)]
    return [slice(0, length - side), slice(length - side, length - step), slice(-step, None)]


def _split_array(values: np.ndarray, side: int) -> np.ndarray:
    windows = split_windows(torch.from_numpy(np.ascontiguousarray(values))[None, ..., None], side)
    return windows[..., 0].numpy()


def _relative_position_index(window: Sequence[int]) -> Tensor:
    """Row of the bias table for each pair of tokens: ``(T, T)``."""
    position = np.stack(np.meshgrid(*map(np.arange, window), indexing="ij")).reshape(3, -1)
    offset = position[:, :, None] - position[:, None, :] + np.reshape(window, (3, 1, 1)) - 1
    return torch.from_numpy(np.ravel_multi_index(tuple(offset), [2 * side - 1 for side in window]))


def _padded_grid(grid: Grid, side: int) -> Grid:
    return tuple(-(-length // side) * side for length in grid)
