from __future__ import annotations

import pytest
import torch

from nas_sweeps.data.batches import EpochSampler, InfiniteSampler, epoch_batches


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_an_epoch_visits_every_image_once_and_keeps_the_small_last_batch():
    index = torch.arange(100, 123)
    batches = epoch_batches(index, 5, seeded())
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    assert torch.cat(batches).sort().values.equal(index)
    assert not torch.cat(batches).equal(index)


@pytest.mark.parametrize(("images", "full"), [(23, 4), (20, 4), (5, 1)])
def test_drop_last_leaves_full_batches_only(images, full):
    batches = epoch_batches(torch.arange(images), 5, seeded(), drop_last=True)
    assert [len(batch) for batch in batches] == [5] * full


def test_drop_last_with_too_few_images_says_what_to_change():
    with pytest.raises(ValueError, match="lower batch_size to at most 4"):
        epoch_batches(torch.arange(4), 5, seeded(), drop_last=True)


def test_epochs_differ_and_a_generator_state_repeats_them():
    generator = seeded()
    state = generator.get_state()
    first, second = (torch.cat(epoch_batches(torch.arange(50), 8, generator)) for _ in range(2))
    generator.set_state(state)
    assert not first.equal(second)
    assert torch.cat(epoch_batches(torch.arange(50), 8, generator)).equal(first)


def test_endless_covers_a_pass_evenly_then_reshuffles():
    stream = InfiniteSampler(torch.arange(12), 4, seeded())
    passes = [torch.cat([stream.next() for _ in range(3)]) for _ in range(3)]
    assert all(one.sort().values.equal(torch.arange(12)) for one in passes)
    assert not passes[0].equal(passes[1])


def test_endless_batches_are_full_and_never_repeat_an_image():
    stream = InfiniteSampler(torch.arange(10), 4, seeded())
    drawn = [stream.next() for _ in range(50)]
    assert all(len(batch.unique()) == 4 for batch in drawn)
    assert len(torch.cat(drawn).unique()) == 10


def test_endless_with_few_images_gives_all_of_them():
    assert InfiniteSampler(torch.arange(3), 64, seeded()).next().sort().values.tolist() == [0, 1, 2]


@pytest.mark.parametrize("taken", [0, 1, 2, 5])
def test_endless_resumes_bit_for_bit_in_another_process(taken, tmp_path):
    stream = InfiniteSampler(torch.arange(11), 4, seeded(3))
    for _ in range(taken):
        stream.next()
    torch.save(stream.state_dict(), tmp_path / "state.pt")
    expected = [stream.next().tolist() for _ in range(9)]
    resumed = InfiniteSampler(torch.arange(11), 4, seeded(99))
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [resumed.next().tolist() for _ in range(9)] == expected


def test_an_endless_state_is_a_snapshot():
    stream = InfiniteSampler(torch.arange(8), 4, seeded())
    state = stream.state_dict()
    expected = [stream.next().tolist() for _ in range(6)]
    for _ in range(2):
        stream.load_state_dict(state)
        assert [stream.next().tolist() for _ in range(6)] == expected


def take(passes: EpochSampler, count: int, drop_last: bool = False) -> list[list[int]]:
    """As many batches, over the ends of passes."""
    taken: list[list[int]] = []
    while True:
        for batch in passes.rest(drop_last):
            taken.append(batch.tolist())
            if len(taken) == count:
                return taken
        passes.next_epoch()


def test_passes_are_epochs_of_one_generator():
    generator = seeded(4)
    expected = [b.tolist() for _ in range(3) for b in epoch_batches(torch.arange(11), 4, generator)]
    assert take(EpochSampler(torch.arange(11), 4, seeded(4)), 9) == expected


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("taken", range(8))
def test_passes_resume_bit_for_bit_between_any_two_batches(taken, drop_last, tmp_path):
    expected = take(EpochSampler(torch.arange(11), 4, seeded(4)), 8 + 4, drop_last)
    stopped = EpochSampler(torch.arange(11), 4, seeded(4))
    assert (take(stopped, taken, drop_last) if taken else []) == expected[:taken]
    torch.save(stopped.state_dict(), tmp_path / "state.pt")
    resumed = EpochSampler(torch.arange(11), 4, seeded(99))
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for passes in (resumed, stopped):
        assert take(passes, 12 - taken, drop_last) == expected[taken:]


def test_a_pass_that_is_over_stays_over_until_the_next_is_asked_for():
    passes = EpochSampler(torch.arange(11), 4, seeded())
    first = [batch.tolist() for batch in passes.rest()]
    assert list(passes.rest()) == []
    passes.next_epoch()
    assert [batch.tolist() for batch in passes.rest()] not in ([], first)
