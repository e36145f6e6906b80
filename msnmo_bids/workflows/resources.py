"""How much memory the nodes need (measured; ``benchmarks/`` has the table)."""

from __future__ import annotations

from pathlib import Path

#: Memory that a worker keeps once it has run a network (GB).
_WORKER = 0.7
#: Node -> (GB whatever the image, bytes for each voxel of the image): peak of its worker.
_NEEDS = {
    "conform": (_WORKER, 8),
    "bet": (_WORKER, 12),
    "deepbet": (1.3, 4),
    "mask": (_WORKER, 8),
    "n4": (_WORKER, 0),
    "cube": (_WORKER, 8),
    # Two networks shall not run at once in 4 GB: they would fit only just.
    "network_bf16": (2.2, 0),
    "network_fp32": (2.2, 0),
    "network_cuda": (1.5, 0),
    "regions": (_WORKER, 42),
    "quality": (_WORKER, 60),
    "segment": (_WORKER, 26),
    "figures": (_WORKER, 18),
    "derivatives": (_WORKER, 14),
    # Two visits on a grid of 1 mm around the brain, some 4 million voxels whatever the images'.
    "visits": (1.1, 26),
}
#: Of an image whose header cannot be read: its first node says what is wrong with it.
_USUAL_VOXELS = 256 * 256 * 160


def memory_gb(node: str, voxels: int = _USUAL_VOXELS) -> float:
    """Return the peak memory of a worker that runs a node.

    Parameters
    ----------
    node : str
        Kind of node.
    voxels : int
        Number of voxels of the raw image.

    Returns
    -------
    float
        GB.

    >>> memory_gb("quality", 10_000_000)
    1.3
    """
    base, bytes_per_voxel = _NEEDS[node]
    return round(base + bytes_per_voxel * voxels / 1e9, 2)


def voxel_count(image: Path) -> int:
    """Return the number of voxels of an image from its header; a usual number if it has none."""
    import numpy as np

    from msnmo_bids.preprocessing.nifti_file import open_nifti

    try:
        return int(np.prod(open_nifti(image).shape[:3]))
    # A broken file raises errors of all kinds here; `conform` turns them into plain words.
    except Exception:
        return _USUAL_VOXELS
