"""Information sharing (Eq. 1-4): local branch, global branch, crossover unit; a density of f.

The density says how unlike the training scans a scan is: Mahalanobis's distance, as in Lee et al.
2018 (doi:10.48550/arXiv.1807.03888), of one vector a scan: mean and standard deviation, over the
brain, of each channel that the network computes anyway. The covariance is shrunk as by Ledoit and
Wolf 2004 (doi:10.1016/S0047-259X(03)00096-4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from msnmo_bids.model.blocks import BrainNormalization, ConvUnit, halve
from msnmo_bids.model.config import CLASSIFICATION, INPUT_CHANNELS, SEGMENTATION, JointConfig
from msnmo_bids.model.swin import SwinBlock

PATCH_SIZE = 8
ATTENTION_HEADS, WINDOW_SIZE, MLP_RATIO = 4, 5, 4.0
SHIFTED = (False, True)  # of the Swin blocks
#: Initial weights of the local and of the global branch. They differ between the tasks: equal ones
#: would tie f_seg to f_cls.
CROSSOVER_START = {SEGMENTATION: ((0.7,), (0.3,)), CLASSIFICATION: ((0.3,), (0.7,))}


class SharedFeatures(NamedTuple):
    """f_seg and f_cls, each ``(B, 32, D/2, H/2, W/2)``; None for a task that is not built."""

    segmentation: Tensor | None
    classification: Tensor | None


class InformationSharing(nn.Module):
    """Features of the image for both tasks, each ``(B, 32, D/2, H/2, W/2)``.

    For an image of 160 both branches and both results are ``(B, 32, 80, 80, 80)``.

    ``sharing`` of the configuration chooses: ``"both"`` branches mixed by the crossover unit (the
    paper's model); ``"none"``, a local branch for each task; ``"local"`` or ``"global"``, one
    branch that both tasks read unmixed.
    """

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        self.tasks = config.tasks
        self.sharing = config.sharing
        if config.sharing == "none":
            self.branches = nn.ModuleDict({task: LocalBranch(config) for task in config.tasks})
        if config.sharing in ("both", "local"):
            self.local_branch = LocalBranch(config)
        if config.sharing in ("both", "global"):
            self.global_branch = GlobalBranch(config)
        if config.sharing == "both":
            self.crossover = CrossoverUnit(config.tasks)

    def forward(self, image: Tensor) -> SharedFeatures:
        """Map the image ``(B, 1, D, H, W)`` to f_seg and f_cls."""
        if self.sharing == "none":
            features = {task: self.branches[task](image) for task in self.tasks}
        elif self.sharing == "both":
            features = self.crossover(self.local_branch(image), self.global_branch(image))
        else:
            branch = self.local_branch if self.sharing == "local" else self.global_branch
            features = dict.fromkeys(self.tasks, branch(image))
        return SharedFeatures(features.get(SEGMENTATION), features.get(CLASSIFICATION))


class LocalBranch(nn.Sequential):
    """CTX_local (Eq. 3): ``(B, 1, D, H, W)`` to ``(B, 32, D/2, H/2, W/2)``.

    Three 3x3x3 convolutions with strides 2, 1, 1: 160 -> 80 -> 80 -> 80. Eq. 3's layer
    normalisation would run over the single channel and return zeros, so the brain is normalised
    as a whole, and the background, which is not the same on a crop, has no part in it.
    """

    def __init__(self, config: JointConfig) -> None:
        width, kind = config.shared_channels, config.local_normalization
        super().__init__(
            BrainNormalization(INPUT_CHANNELS),
            ConvUnit(INPUT_CHANNELS, width, kind, stride=2),
            ConvUnit(width, width, kind),
            ConvUnit(width, width, kind),
        )


class GlobalBranch(nn.Module):
    """GTX_global (Eq. 1, 2): ``(B, 1, D, H, W)`` to ``(B, 32, D/2, H/2, W/2)``.

    Patch embedding by a convolution (kernel and stride 8) and an average pooling of 2, layer
    normalisation, Swin blocks, trilinear interpolation: 160 -> 20 -> 10 tokens per side -> 80.
    """

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        width = config.embedding_channels
        self.embedding = nn.Conv3d(INPUT_CHANNELS, width, PATCH_SIZE, PATCH_SIZE)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.Sequential(
            *(
                SwinBlock(width, ATTENTION_HEADS, WINDOW_SIZE, shifted=shifted, mlp_ratio=MLP_RATIO)
                for shifted in SHIFTED
            )
        )
        same = width == config.shared_channels
        self.projection = nn.Identity() if same else nn.Conv3d(width, config.shared_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map the image to the global features."""
        tokens = halve(self.embedding(image)).movedim(1, -1)
        tokens = self.blocks(self.norm(tokens)).movedim(-1, 1)
        half = [side // 2 for side in image.shape[2:]]
        return F.interpolate(self.projection(tokens), half, mode="trilinear")


class CrossoverUnit(nn.Module):
    """f_task = w_task1 * CTX_local + w_task2 * GTX_global for each of the tasks (Eq. 4)."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.weights = nn.ParameterDict(
            {task: torch.tensor(CROSSOVER_START[task]) for task in tasks}
        )

    def forward(self, local: Tensor, global_: Tensor) -> dict[str, Tensor]:
        """Mix two tensors ``(B, C, D, H, W)`` into one of the same shape for each task."""
        global_ = global_.to(local.dtype)
        pairs = {task: weights.to(local.dtype) for task, weights in self.weights.items()}
        return {task: first * local + second * global_ for task, (first, second) in pairs.items()}


class FeatureDensity(nn.Module):
    """A normal distribution of `count` values per scan, as tensors that the weights' file holds."""

    mean: Tensor
    whitening: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("whitening", torch.eye(count))

    def fit(self, statistics: Tensor) -> None:
        """Set mean and covariance from `feature_statistics`, (N, count), of a training's scans."""
        from sklearn.covariance import LedoitWolf
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler()
        scaled = scaler.fit_transform(statistics.double().cpu().numpy())
        # The shrinkage is towards equal variances, so each value is first brought to one of 1.
        fitted = LedoitWolf().fit(scaled)
        precision = torch.from_numpy(fitted.precision_)
        scale = torch.from_numpy(scaler.scale_)
        self.mean.copy_(torch.from_numpy(scaler.mean_ + fitted.location_ * scaler.scale_))
        self.whitening.copy_(torch.linalg.cholesky(precision).T / scale)

    def forward(self, statistics: Tensor) -> Tensor:
        """Return the distance, ``(B,)``, of the statistics of scans, ``(B, count)``, from the mean.

        It is the Mahalanobis distance over the square root of `count`: about 1 for scans like those
        of `fit`.
        """
        offset = (statistics.float() - self.mean) @ self.whitening.T
        return offset.square().mean(dim=1).sqrt()


def feature_statistics(maps: Tensor, image: Tensor) -> Tensor:
    """Return mean and standard deviation of each channel over the brain.

    Parameters
    ----------
    maps : Tensor
        ``(B, C, d, h, w)``.
    image : Tensor
        ``(B, 1, D, H, W)``; the brain is where it is not 0.

    Returns
    -------
    Tensor
        ``(B, 2 * C)``, float32: the means, then the standard deviations.
    """
    share = F.interpolate((image != 0).float(), maps.shape[2:], mode="area")
    share = share / share.sum(dim=(2, 3, 4), keepdim=True).clamp(min=1e-6)
    mean = (maps.float() * share).sum(dim=(2, 3, 4), keepdim=True)
    variance = ((maps.float() - mean).square() * share).sum(dim=(2, 3, 4))
    return torch.cat([mean.flatten(1), variance.sqrt()], dim=1)
