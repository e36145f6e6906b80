"""Sources of samples: scans in epochs, simulated brains, both mixed; random numbers of a step."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msnmo_bids.labelled.samples import Sample
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.training.sources import (
    BrainPool,
    EpochSource,
    MixedSource,
    PreparedSamples,
    SimulatedSource,
    Stream,
    generator,
)

CUBE = np.zeros((2, 2, 2), np.float16)


def test_generators_differ_by_purpose_and_position():
    positions = [(0,), (0, 0), (0, 0, 0), (1,), (0, 1), (1, 0)]
    numbers = {
        float(generator(3, stream, *position).random())
        for stream in Stream
        for position in positions
    }
    assert len(numbers) == len(Stream) * len(positions)
    assert generator(3, Stream.SAMPLE, 1).random() == generator(3, Stream.SAMPLE, 1).random()


def steps_of(scans, per_step, processes, steps, seed=0, start=0):
    """Return the scans of each step, over all processes, as sorted numbers."""
    samples = list(range(scans))
    sources = [
        EpochSource(samples, per_step, seed=seed, rank=rank, processes=processes)
        for rank in range(processes)
    ]
    rng = np.random.default_rng(0)
    found = []
    for source in sources:
        source.rebuild(start)
    for step in range(start, start + steps):
        drawn = []
        for source in sources:
            source.advance(step, rng)
            drawn += [source.draw(rng) for _ in range(per_step)]
        found.append(sorted(drawn))
    return found


@settings(max_examples=50, deadline=None)
@given(
    scans=st.integers(1, 12),
    per_process=st.integers(1, 3),
    processes=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_an_epoch_shows_each_scan_once_for_any_number_of_processes(
    scans, per_process, processes, seed
):
    per_step = per_process * processes
    several = steps_of(scans, per_process, processes, 2 * scans, seed)
    assert several == steps_of(scans, per_step, 1, 2 * scans, seed)
    one_by_one = [found for (found,) in steps_of(scans, 1, 1, 3 * scans, seed)]
    for epoch in range(3):
        assert sorted(one_by_one[epoch * scans : (epoch + 1) * scans]) == list(range(scans))


def test_a_source_starts_anywhere_and_shuffles_each_epoch():
    whole = steps_of(7, 2, 1, 20)
    assert steps_of(7, 2, 1, 5, start=15) == whole[15:]
    orders = {tuple(map(tuple, steps_of(7, 1, 1, 7, seed=seed))) for seed in range(5)}
    assert len(orders) == 5
    one = steps_of(7, 1, 1, 14)
    assert one[:7] != one[7:]
    with pytest.raises(ValueError, match="no training samples"):
        EpochSource([], 1, seed=0)


class QuickPool(BrainPool):
    """Brains of noise: the seed decides all, as with the simulator."""

    def __init__(self, size: int = 3) -> None:
        shape = (16,) * 3
        super().__init__(
            SimulationAssets([]), shape, size=size, classes=("MS", "NMOSD"), nmosd_share=0.5
        )

    def refresh(self, rng: np.random.Generator) -> None:
        image = rng.normal(0, 1, self.shape).astype(np.float16)
        self.brains.append(Sample(image, np.ones(self.shape, np.uint8), int(rng.integers(2))))


@pytest.mark.parametrize("fill", [2, 5])
@pytest.mark.parametrize("refresh_every", [1, 2, 3])
@pytest.mark.parametrize("step", [0, 1, 2, 3, 7])
def test_a_rebuilt_pool_is_that_of_an_undisturbed_training(step, refresh_every, fill):
    whole, rebuilt = (
        SimulatedSource(QuickPool(), seed=4, refresh_every=refresh_every, fill=fill)
        for _ in range(2)
    )
    whole.rebuild(0)
    for earlier in range(step):
        whole.advance(earlier, generator(4, Stream.ADVANCE, earlier, 0))
    rebuilt.rebuild(step)
    assert len(rebuilt.pool.brains) == len(whole.pool.brains)
    for one, other in zip(rebuilt.pool.brains, whole.pool.brains, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_classes_take_turns():
    source = SimulatedSource(
        QuickPool(size=12), seed=0, fill=12, samples_per_step=3, turns=True, refresh_every=100
    )
    source.rebuild(0)
    drawn = []
    for step in range(1, 5):
        source.advance(step, np.random.default_rng(0))
        drawn += [source.draw(np.random.default_rng(step)).diagnosis for _ in range(3)]
    assert drawn == [1, 0] * 6


def make_pool(head, size=2, nmosd_share=0.5, **more) -> BrainPool:
    return BrainPool(
        SimulationAssets([head]),
        (32, 32, 32),
        size=size,
        nmosd_share=nmosd_share,
        **{"classes": ("MS", "NMOSD"), **more},
    )


def test_refresh_simulates_and_drops_the_oldest(ball_head):
    pool = make_pool(ball_head)
    for seed in range(3):
        pool.refresh(np.random.default_rng(seed))
    again = make_pool(ball_head, size=1)
    again.refresh(np.random.default_rng(2))
    assert len(pool.brains) == 2
    newest = pool.brains[-1]
    np.testing.assert_array_equal(newest.image, again.brains[0].image)
    assert newest.image.dtype == np.float16
    assert newest.image.shape == newest.lesions.shape == (32, 32, 32)
    assert np.isfinite(newest.image).all()
    brain = newest.image[newest.image != 0].astype(np.float32)
    assert abs(brain.mean()) < 0.01
    assert brain.std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("share", "label"), [(0.0, 0), (1.0, 1)])
def test_class_labels_follow_the_order_of_the_classes(ball_head, share, label):
    pool = make_pool(ball_head, nmosd_share=share)
    pool.refresh(np.random.default_rng(0))
    assert pool.brains[0].diagnosis == label


@pytest.mark.parametrize(("share", "label"), [(0.0, 1), (1.0, 2)])
def test_a_brain_without_lesions_is_healthy_where_that_is_a_class(ball_head, share, label):
    pool = make_pool(
        ball_head, nmosd_share=1.0, classes=("MS", "NMOSD", "HC"), lesion_free_share=share
    )
    pool.refresh(np.random.default_rng(0))
    (only,) = pool.brains
    assert only.diagnosis == label
    assert only.lesions.any() == (label == 1)
    assert pool.draw(np.random.default_rng(0), label) is only


def test_a_class_is_drawn_with_lesions_where_the_pool_has_it(ball_head):
    pool = make_pool(ball_head, size=4)
    empty = np.zeros((4, 4, 4), np.uint8)
    full = np.ones_like(empty)
    image = np.zeros(empty.shape, np.float16)
    brains = [Sample(image, full, 0), Sample(image, empty, 1), Sample(image, full, 1)]
    pool.brains.extend(brains)
    rng = np.random.default_rng(0)
    assert all(pool.draw(rng, 1) is brains[2] for _ in range(20))
    assert {id(pool.draw(rng)) for _ in range(50)} == {id(brain) for brain in brains}
    pool.brains.pop()
    assert all(pool.draw(rng, 1) is brains[1] for _ in range(20))  # none of it has lesions
    pool.brains.pop()
    assert pool.draw(rng, 1) is brains[0]  # better than none


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
