"""How unlike the training scans a scan is: a Gaussian density on the shared features.

The distance is Mahalanobis's, as in Lee et al. 2018 (doi:10.48550/arXiv.1807.03888), of one vector
a scan: mean and standard deviation, over the brain, of each channel that the network computes
anyway. The covariance is shrunk as by Ledoit and Wolf 2004 (doi:10.1016/S0047-259X(03)00096-4).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


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
