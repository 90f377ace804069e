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
            "effective, over, shuffle, sqrt, under (did you mean balanced?)" in refused.value.args
        )
        assert (
            f"grid: {phase}.recipe.loss: unknown loss 'fokal'; choose from "
            "balanced_softmax, ce, drw, effective, focal, "
            "ghm, inv_freq, inv_sqrt, label_aware_smoothing, ldam, logit_adjust "
            "(did you mean focal?)"
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


# Long-tailed passes. Of 20,431 images, CIFAR-10's at exp mu=0.1.

COUNTS = (5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500)


def shares_of(name: str) -> torch.Tensor:
    """How likely each class is, from eight passes."""
    labels = torch.repeat_interleave(torch.arange(10), torch.tensor(COUNTS))
    sampler, generator = SAMPLERS.build(name), draw(5)
    drawn = torch.cat([labels[sampler.order(labels, generator)] for _ in range(8)])
    return drawn.bincount(minlength=10).double() / len(drawn)


def expected_shares(name: str) -> torch.Tensor:
    n = torch.tensor(COUNTS, dtype=torch.float64)
    share = {
        "over": torch.ones(10, dtype=torch.float64),
        "sqrt": n.sqrt(),
        "effective": n * (1 - 0.9999) / (1 - 0.9999**n),
    }[name]
    return share / share.sum()


@pytest.mark.parametrize("name", ["over", "sqrt", "effective"])
def test_classes_are_as_likely_as_the_formula_says(name: str) -> None:
    expected = expected_shares(name)
    error = (expected / (8 * sum(COUNTS))).sqrt()  # of a share, at most
    assert ((shares_of(name) - expected).abs() < 5 * error).all()


def test_effective_shares_are_the_known_ones() -> None:
    shares = expected_shares("effective")
    assert [round(float(x), 4) for x in (shares[0], shares[-1])] == [0.1148, 0.0926]


def test_under_sampling_takes_as_many_of_every_class_as_the_smallest_has() -> None:
    labels = torch.tensor([0] * 9 + [1] * 2 + [3] * 4)
    sampler, generator = SAMPLERS.build("under"), draw()
    passes = [sampler.order(labels, generator) for _ in range(30)]
    for taken in passes:
        assert labels[taken].bincount().tolist() == [2, 2, 0, 2]
        assert len(set(taken.tolist())) == 6
    assert set(torch.cat(passes).tolist()) == set(range(15)), "others every time"
    assert sampler.length((9, 2, 0, 4)) == 6


def test_a_shorter_pass_is_cut_into_batches_and_resumed_like_any_other() -> None:
    labels = torch.tensor([0] * 9 + [1] * 2 + [2] * 4)
    sampler = SAMPLERS.build("under")

    def order(generator: torch.Generator) -> torch.Tensor:
        return sampler.order(labels, generator)

    index = torch.arange(100, 115)
    sizes = [len(b) for b in EpochSampler(index, 4, draw()).rest(order=order)]
    assert sizes == [4, 2]
    whole = [b.tolist() for b in EpochSampler(index, 2, draw(1)).rest(order=order)]
    stopped, other = EpochSampler(index, 2, draw(1)), EpochSampler(index, 2, draw(7))
    first = next(stopped.rest(order=order))
    other.load_state_dict(stopped.state_dict())
    assert [first.tolist(), *(b.tolist() for b in other.rest(order=order))] == whole
