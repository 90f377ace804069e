"""Samplers: the shared contract, and what ours promise beyond it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import nas_sweeps as ns
from nas_sweeps.data.batches import EpochSampler
from nas_sweeps.data.samplers import SAMPLERS, Balanced, Shuffle
from nas_sweeps.testing import SamplerContract
from tests.train.tiny_runs import bundle, retrain_run, search_run


@pytest.mark.parametrize("name", SAMPLERS.names())
class TestEverySampler(SamplerContract):
    pass


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_shuffling_is_what_passes_do_without_a_sampler() -> None:
    index = torch.arange(100, 133)
    labels = torch.arange(33) % 4
    plain, sampled = EpochSampler(index, 8, draw(3)), EpochSampler(index, 8, draw(3))
    with_shuffle = sampled.rest(order=lambda generator: Shuffle().order(labels, generator))
    for a, b in zip(plain.rest(), with_shuffle, strict=True):
        assert torch.equal(a, b)


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_balanced_passes_hold_every_class_equally_and_every_image_of_it(
    counts: list[int], seed: int
) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=draw(seed))]
    taken = Balanced().order(labels, draw(seed))
    by_class = Counter(labels[taken].tolist())
    share = len(labels) / len(counts)
    assert {int(share)} <= set(by_class.values()) <= {int(share), int(share) + 1}
    by_image = Counter(taken.tolist())
    for k, count in enumerate(counts):
        times = [by_image[i] for i in (labels == k).nonzero().flatten().tolist()]
        assert sum(times) == by_class[k]
        assert max(times) - min(times) <= 1
        assert len(times) == count


def test_balanced_passes_differ() -> None:
    labels, generator = torch.tensor([0] * 9 + [1] * 2), draw()
    first, second = (Balanced().order(labels, generator) for _ in range(2))
    assert not torch.equal(first, second)


def test_balanced_passes_resume_between_any_two_batches() -> None:
    labels = torch.tensor([0] * 9 + [1] * 2)
    index = torch.arange(11)

    def order(generator: torch.Generator) -> torch.Tensor:
        return Balanced().order(labels, generator)

    whole = [b.tolist() for b in EpochSampler(index, 3, draw(1)).rest(order=order)]
    stopped, other = EpochSampler(index, 3, draw(1)), EpochSampler(index, 3, draw(7))
    first = next(stopped.rest(order=order))
    other.load_state_dict(stopped.state_dict())
    assert [first.tolist(), *(b.tolist() for b in other.rest(order=order))] == whole


def class_counts(run: object, index: torch.Tensor) -> list[int]:
    """Of the images that the weights are trained on in an epoch."""
    seen = torch.zeros(10, dtype=torch.int64)
    step = run.step

    def counted(t_index: torch.Tensor, *rest: torch.Tensor) -> dict:
        seen.add_(torch.bincount(bundle().labels[t_index], minlength=10))
        return step(t_index, *rest)

    run.step = counted
    run.run_epoch()
    return seen.tolist()


@pytest.mark.parametrize(
    ("make", "name"), [(search_run, "darts"), (retrain_run, "plain")], ids=["search", "retrain"]
)
def test_a_recipe_names_its_sampler(make: object, name: str) -> None:
    counts = class_counts(make(name, sampler="balanced"), bundle().t_index)
    assert max(counts) - min(counts) <= 1
    plain = class_counts(make(name), bundle().t_index)
    assert sum(plain) == sum(counts)
    assert max(plain) > min(plain) + 1


@pytest.mark.parametrize(
    ("make", "name"),
    [(search_run, "ssf_nas"), (retrain_run, "barlow then all")],
    ids=["search", "pretraining"],
)
def test_where_no_label_is_read_a_sampler_sees_none(make: object, name: str) -> None:
    assert class_counts(make(name, sampler="balanced"), bundle().t_index) == class_counts(
        make(name), bundle().t_index
    )


def grid(**recipe: object) -> ns.Grid:
    return ns.Grid.from_dict(
        {
            "data": {"dataset": "digits"},
            "search": {"methods": ["darts"], "distributions": ["balance"], "recipe": recipe},
            "retrain": {"recipe": recipe},
        }
    )


def test_a_sampler_is_part_of_an_identity_unless_it_is_the_one_of_old() -> None:
    plain, same, other = (
        ns.plan(grid(**recipe)).searches[0].trial_id
        for recipe in ({}, {"sampler": "shuffle"}, {"sampler": "balanced"})
    )
    assert plain == same
    assert plain != other


def test_unknown_samplers_and_losses_are_mistakes_of_the_grid() -> None:
    with pytest.raises(ns.GridError) as refused:
        grid(sampler="balancd", loss="fokal")
    for phase in ("search", "retrain"):
        assert (
            f"grid: {phase}.recipe.sampler: unknown sampler 'balancd'; choose from balanced, "
            "shuffle (did you mean balanced?)" in refused.value.args
        )
        assert (
            f"grid: {phase}.recipe.loss: unknown loss 'fokal'; choose from ce, effective, focal, "
            "ghm, inv_freq, inv_sqrt, ldam, logit_adjust (did you mean focal?)"
        ) in refused.value.args


def test_a_recipe_that_a_method_refuses_is_a_mistake_of_the_grid() -> None:
    with pytest.raises(ns.GridError) as refused:
        ns.Grid.from_dict(
            {
                "data": {"dataset": "digits"},
                "search": {
                    "methods": ["fairdarts", {"darts": {"order": "second"}}],
                    "distributions": ["balance"],
                    "recipe": {"precision": "bf16"},
                },
            }
        )
    assert refused.value.args == (
        "grid: search.methods[1]: darts takes a finite difference for its second order, which "
        "precision bf16 rounds away; use fp32, or hvp: exact",
    )
