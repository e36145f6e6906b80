"""The weights that the command line asks for."""

from __future__ import annotations

import json

import pytest

from msnmo_bids.errors import MsnmoError, UsageError
from msnmo_bids.model.weights import WeightsError, WeightsMetadata, find_weights
from msnmo_bids.run.plan import find_ensemble
from msnmo_bids.settings import hash_file


def test_weights_of_an_ensemble_must_be_there_and_go_together(tmp_path):
    def make_weights(name, **what):
        file = tmp_path / f"{name}.safetensors"
        file.write_text(name)
        description = WeightsMetadata(name, "1", sha256=hash_file(file), **what).to_dict()
        file.with_suffix(".json").write_text(json.dumps(description))
        return file

    main, others = make_weights("one"), [make_weights("two")]
    found = find_ensemble(main, others)
    assert [metadata.name for _, metadata in found] == ["one", "two"]
    others.append(make_weights("three", cube_shape=(96, 96, 96)))
    with pytest.raises(UsageError, match=r"three 1 takes a cube of \(96, 96, 96\)"):
        find_ensemble(main, others)
    with pytest.raises(MsnmoError, match=r"missing\.safetensors.*--ensemble"):
        find_ensemble(main, [tmp_path / "missing.safetensors"])


def test_a_branch_that_reads_other_descriptors_is_refused(tmp_path):
    (tmp_path / "old.safetensors").touch()
    described = WeightsMetadata(
        "old", "1", configuration={"lesion_descriptors": 2}, lesion_descriptors=("size", "place"),
        sha256=hash_file(tmp_path / "old.safetensors"),
    )  # fmt: skip
    (tmp_path / "old.json").write_text(json.dumps(described.to_dict()))
    with pytest.raises(WeightsError, match="reads other descriptors"):
        find_weights(tmp_path / "old.safetensors")
