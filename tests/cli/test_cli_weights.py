"""The weights that the command line asks for."""

from __future__ import annotations

import json
from argparse import Namespace

import pytest

from msnmo_bids.cli.weights import find_ensemble
from msnmo_bids.errors import MsnmoError, UsageError
from msnmo_bids.model.weights import WeightsMetadata


def test_weights_of_an_ensemble_must_be_there_and_go_together(tmp_path):
    def make_weights(name, **what):
        description = WeightsMetadata(name, "1", **what).to_dict()
        (tmp_path / f"{name}.json").write_text(json.dumps(description))
        (tmp_path / f"{name}.safetensors").touch()
        return tmp_path / f"{name}.safetensors"

    options = Namespace(weights=make_weights("one"), ensemble=[make_weights("two")])
    found = find_ensemble(options)
    assert [metadata.name for _, metadata in found] == ["one", "two"]
    options.ensemble.append(make_weights("three", cube_shape=(96, 96, 96)))
    with pytest.raises(UsageError, match=r"three 1 takes a cube of \(96, 96, 96\)"):
        find_ensemble(options)
    options.ensemble = [tmp_path / "missing.safetensors"]
    with pytest.raises(MsnmoError, match=r"missing\.safetensors.*--ensemble"):
        find_ensemble(options)
