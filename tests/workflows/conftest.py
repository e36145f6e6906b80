"""A small head, small weights and the doubles of BET and N4 for the workflow's tests."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantoms import AFFINE, head

from msnmo_bids.bids.scans import Scan
from msnmo_bids.settings import ProcessingSettings

DOUBLES = Path(__file__).parents[1] / "doubles"


@pytest.fixture
def make_scan(tmp_path: Path) -> Callable[..., Scan]:
    """Return a function that writes one raw FLAIR into a data set under ``tmp_path``."""

    def make(
        subject: str = "01", *, data: np.ndarray | None = None, affine: np.ndarray = AFFINE
    ) -> Scan:
        relative = f"sub-{subject}/anat/sub-{subject}_FLAIR.nii.gz"
        path = tmp_path / "bids" / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(head() if data is None else data, affine)
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        nib.save(image, path)
        return Scan(
            path=path,
            bids_dir=tmp_path / "bids",
            relative=relative,
            subject=subject,
            session=None,
            prefix=f"sub-{subject}",
            folder=f"sub-{subject}/anat",
        )

    return make


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return random weights of a small joint model."""
    import torch

    from msnmo_bids.model.config import JointConfig
    from msnmo_bids.model.joint import JointNetwork
    from msnmo_bids.model.weights import WeightsMetadata, save_weights

    torch.manual_seed(3)
    config = JointConfig(
        shared_channels=8,
        embedding_channels=8,
        segmentation_channels=(8, 8, 8),
        decoder_channels=(8, 8, 8),
        classification_channels=(8, 8, 8),
    )
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    metadata = WeightsMetadata(name="tiny", version="0", trained_on=("simulated scans",))
    network = JointNetwork(config)
    for last in network.segmentation.heads:  # no prior: half of the brain is lesion
        torch.nn.init.zeros_(last.bias)
    save_weights(path, network, metadata)
    return path


@pytest.fixture(scope="session")
def lesion_weights(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """Return the same with a random branch that classifies the lesions."""
    import torch

    from msnmo_bids.lesions.descriptors import DESCRIPTORS
    from msnmo_bids.model.joint import JointNetwork
    from msnmo_bids.model.weights import load_weights, save_weights

    torch.manual_seed(4)
    network, metadata = load_weights(weights)
    config = replace(
        network.config, tasks=("segmentation",), lesion_descriptors=len(DESCRIPTORS), lesion_fits=2
    )
    path = tmp_path_factory.mktemp("weights") / "tiny-lesions.safetensors"
    described = replace(metadata, lesion_descriptors=tuple(DESCRIPTORS))
    save_weights(path, JointNetwork(config), described)
    return path


@pytest.fixture
def doubles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[list[str]]]:
    """Put the doubles on PATH; the function that is returned reads the words of their calls."""
    log = tmp_path / "doubles.log"
    python = Path(sys.executable).parent
    monkeypatch.setenv("PATH", os.pathsep.join([str(DOUBLES), str(python), os.environ["PATH"]]))
    monkeypatch.setenv("DOUBLE_LOG", str(log))

    def calls() -> list[list[str]]:
        if not log.exists():
            return []
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]

    return calls


@pytest.fixture
def settings() -> ProcessingSettings:
    """Return settings that run fast and need no program: skip, skip, sloppy."""
    return ProcessingSettings(skull_strip="skip", bias_correction="skip", sloppy=True)
