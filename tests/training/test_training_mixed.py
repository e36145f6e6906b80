from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from msnmo_bids.labelled.samples import Sample
from msnmo_bids.training.mixed import MixedSource, PreparedSamples

CUBE = np.zeros((2, 2, 2), np.float16)


@dataclass
class Scan:
    """Stands for a prepared scan and counts how often it is read."""

    name: str
    loaded: list[str] = field(default_factory=list)

    def load(self, classes) -> Sample:
        self.loaded.append(self.name)
        return Sample(CUBE, None, classes.index("NMOSD"), self.name)


class Source:
    """Gives its name and the draw's random number, and notes what was asked."""

    def __init__(self, name: str, calls: list, length: int = 10) -> None:
        self.name, self.calls, self.length = name, calls, length

    def __len__(self) -> int:
        return self.length

    def rebuild(self, step):
        self.calls.append((self.name, "rebuild", step))

    def advance(self, step, rng):
        self.calls.append((self.name, "advance", step, rng.random()))

    def draw(self, rng):
        return Sample(CUBE, None, None, f"{self.name} {rng.random():.6f}")


def mixed(share: float, **options) -> MixedSource:
    calls: list = []
    return MixedSource(Source("real", calls, **options), Source("simulated", calls), share)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_the_share_of_simulated_samples(share):
    source = mixed(share)
    rng = np.random.default_rng(1)
    names = [source.draw(rng).name.split()[0] for _ in range(2000)]
    assert names.count("simulated") / 2000 == pytest.approx(share, abs=0.03)


def test_a_draw_depends_on_its_generator_alone():
    undisturbed, resumed = mixed(0.5), mixed(0.5)
    drawn = [undisturbed.draw(np.random.default_rng((7, n))).name for n in range(30)]
    later = [resumed.draw(np.random.default_rng((7, n))).name for n in range(20, 30)]
    assert later == drawn[20:]
    assert {name.split()[0] for name in drawn} == {"real", "simulated"}


def test_both_sources_follow_the_steps_and_the_simulator_comes_first():
    source = mixed(0.5)
    source.rebuild(4)
    source.advance(4, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    assert sorted(source.real.calls[:2]) == [("real", "rebuild", 4), ("simulated", "rebuild", 4)]
    assert source.real.calls[2:] == [
        ("simulated", "advance", 4, rng.random()),
        ("real", "advance", 4, rng.random()),
    ]


@pytest.mark.parametrize(("share", "length"), [(0.0, 12), (0.5, 24), (0.75, 48)])
def test_an_epoch_has_room_for_all_real_scans(share, length):
    assert len(mixed(share, length=12)) == length


@pytest.mark.parametrize("share", [-0.1, 1.0, 2])
def test_a_wrong_share_is_refused(share):
    with pytest.raises(ValueError, match="simulated_share"):
        mixed(share)


def test_scans_are_read_when_they_are_needed_and_few_are_kept():
    loaded: list[str] = []
    scans = [Scan(f"s{n}", loaded) for n in range(4)]
    samples = PreparedSamples(scans, ("MS", "NMOSD"), keep=2)
    assert len(samples) == 4
    assert loaded == []
    assert samples[1] is samples[1]
    assert (samples[1].name, samples[1].diagnosis) == ("s1", 1)
    assert samples[-1].name == "s3"
    assert loaded == ["s1", "s3"]
    assert samples[1].name == "s1"  # used last: s3 goes before it
    assert samples[0].name == "s0"
    assert samples[1].name == "s1"
    assert loaded == ["s1", "s3", "s0"]
    assert samples[3].name == "s3"
    assert loaded == ["s1", "s3", "s0", "s3"]
    with pytest.raises(IndexError):
        samples[4]


def test_a_part_of_the_scans_is_as_lazy():
    loaded: list[str] = []
    samples = PreparedSamples([Scan(f"s{n}", loaded) for n in range(4)], ("NMOSD",))
    part = samples[1:3]
    assert loaded == []
    assert [sample.name for sample in part] == ["s1", "s2"]
