"""How much memory the nodes need (measured; ``benchmarks/`` has the table)."""

from __future__ import annotations

from pathlib import Path

#: Node -> (GB whatever the image, bytes for each voxel of the image): peak of its worker.
_NEEDS = {
    "conform": (0.3, 10),
    "bet": (0.3, 10),
    "deepbet": (1.3, 4),
    "mask": (0.4, 15),
    "n4": (0.6, 55),
    "cube": (0.5, 12),
    # Two networks shall not run at once in 4 GB: they would fit only just.
    "network_bf16": (2.2, 0),
    "network_fp32": (2.2, 0),
    "network_cuda": (1.5, 0),
    "regions": (0.8, 40),
    "segment": (0.6, 30),
    "figures": (0.6, 20),
    "derivatives": (0.6, 16),
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

    >>> memory_gb("conform", 10_000_000)
    0.4
    """
    base, bytes_per_voxel = _NEEDS[node]
    return round(base + bytes_per_voxel * voxels / 1e9, 2)


def voxel_count(image: Path) -> int:
    """Return the number of voxels of an image from its header; a usual number if it has none."""
    import nibabel as nib
    import numpy as np

    try:
        return int(np.prod(nib.Nifti1Image.from_filename(image).shape[:3]))
    # A broken file raises errors of all kinds here; `conform` turns them into plain words.
    except Exception:
        return _USUAL_VOXELS
