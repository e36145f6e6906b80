"""How many voxels an image has, for the memory estimate; what workers start with."""

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from msnmo_bids.workflows.resources import _USUAL_VOXELS, memory_gb, voxel_count


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_voxels_are_counted_from_the_header(kind, tmp_path):
    path = tmp_path / "flair.nii.gz"
    nib.save(kind(np.zeros((4, 5, 6), np.int16), np.eye(4)), path)
    assert voxel_count(path) == 120


def test_an_unreadable_image_counts_as_a_usual_one(tmp_path):
    path = tmp_path / "flair.nii.gz"
    path.write_text("no image")
    assert voxel_count(path) == _USUAL_VOXELS


def test_large_images_need_more_memory():
    assert memory_gb("quality", 30_000_000) > memory_gb("quality", 3_000_000)
    assert memory_gb("n4", 30_000_000) == memory_gb("n4", 3_000_000)  # on a coarse grid


def test_workers_start_with_their_libraries(tmp_path):
    """In a process of its own: this one may have a fork server already."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from multiprocessing import get_context\n"
        "from msnmo_bids.workflows.resources import start_fork_server\n"
        "def say():\n"
        "    import gc, signal, torch\n"
        "    blocked = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
        "    print(*({'torch', 'ants', 'deepbet'} & early), blocked, torch.get_num_threads(),\n"
        "          gc.isenabled(), gc.get_freeze_count() > 100_000)\n"
        "early = set(sys.modules)\n"
        "if __name__ == '__main__':\n"
        "    start_fork_server(['deepbet', 'antspyx'], threads=1)\n"
        "    worker = get_context('forkserver').Process(target=say)\n"
        "    worker.start()\n"
        "    worker.join()\n"
    )
    said = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    *libraries, blocked, threads, collects, frozen = said.stdout.split()
    assert (sorted(libraries), blocked, threads) == (["deepbet", "torch"], "True", "1")
    assert (collects, frozen) == ("True", "True")
