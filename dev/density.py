"""The density of a network's features: from what distance on a scan is unlike those of training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dev.brains import read_brain
from dev.train_lesions import real_brains
from msnmo_bids.model.joint import JointNetwork

#: Share of the brains that lie within the limit, each by a density without its group.
WITHIN = 0.99
GROUPS = 5


def with_density(
    network: JointNetwork, store: Path, prepared: Path, count: int
) -> tuple[JointNetwork, float]:
    """Fit the density to simulated brains and to the real ones.

    Parameters
    ----------
    network : JointNetwork
        Segments; as trained on all sources.
    store, prepared : Path
        Simulated brains (``dev.simulated_store``) and prepared real scans.
    count : int
        Number of simulated brains.

    Returns
    -------
    network : JointNetwork
        The same with a density.
    limit : float
        Distance within which `WITHIN` of the brains lie.
    """
    files = sorted(store.glob("*.npz"))[:count]
    people, _ = real_brains(prepared, None)
    images = [read_brain(file).image for file in files]
    images += [scan.image for scans in people for scan in scans]
    groups = np.arange(len(images)) % GROUPS
    whole = JointNetwork(replace(network.config, density=True)).eval()
    whole.load_state_dict(whole.state_dict() | network.state_dict())
    statistics = torch.cat(list(_statistics(whole, images)))
    distances = np.zeros(len(images))
    for group in range(GROUPS):
        inside = groups == group
        whole.density.fit(statistics[~inside])
        distances[inside] = whole.density(statistics[inside]).numpy()
    whole.density.fit(statistics)
    return whole, float(np.quantile(distances, WITHIN))


def _statistics(network: JointNetwork, images: Iterable[np.ndarray]) -> Iterable[torch.Tensor]:
    for values in images:
        image = torch.from_numpy(np.asarray(values, np.float32))[None, None]
        image = image.contiguous(memory_format=torch.channels_last_3d)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            yield network.forward_statistics(network.forward_features(image), image)
