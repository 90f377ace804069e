"""A step that is recorded and replayed computes what one that runs as it is does."""

from __future__ import annotations

import logging
from contextlib import nullcontext

import pytest
import torch

from nas_sweeps import methods
from nas_sweeps.methods import Progress
from nas_sweeps.space.genotype import EDGES
from nas_sweeps.train import recorded, retrain, search
from nas_sweeps.train.recorded import Step, default_recorder
from nas_sweeps.train.retrain import RetrainRun
from nas_sweeps.train.search import SearchRun
from tests.train.tape import Tapes
from tests.train.tiny_runs import (
    CPU,
    RETRAINS,
    SEARCHES,
    Finished,
    finish,
    make,
    through_a_file,
    timeless,
)

QUICK = ("fairdarts", *RETRAINS)
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in SEARCHES if name not in QUICK]
SIZES = {"batch_size": 8}  # enough steps: learning rates move between a recording and its replays


@pytest.fixture(autouse=True)
def _short_rehearsals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "REHEARSALS", 2)  # the first fills caches of constants


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_replays_are_steps(name: str) -> None:
    tapes = Tapes()
    run, plain = make(name, tapes, **SIZES), make(name, Tapes(refuse=True), **SIZES)
    Finished.of(run, finish(run)).assert_same_bits(Finished.of(plain, finish(plain)))
    assert tapes.recorded >= 1
    assert tapes.replays >= (2 if name == "pc_darts" else 4)  # half as many of two kinds of steps


@pytest.mark.parametrize("name", ["gdas", "beta_darts"])
def test_what_changes_with_the_epoch_and_noise_reach_a_replay(name: str) -> None:
    """The search's own steps show it too, slowly: here is what a method computes in one, alone."""
    method = methods.build(methods.resolve(name, {}))
    drawn = method.initial_parameters(len(EDGES), torch.Generator().manual_seed(0))

    def values(recorder: Tapes) -> list[float]:
        noise = torch.Generator().manual_seed(1)
        progress = Progress(torch.zeros((), dtype=torch.float64), 8, noise)
        parameters = {name: p.clone().requires_grad_() for name, p in drawn.items()}

        def body(index: torch.Tensor) -> dict:
            weights = method.edge_weights(parameters, progress)
            loss = method.regulariser(parameters, weights, progress)
            loss = loss + sum((w * torch.arange(8.0)).square().sum() for w in weights)
            (slope, *_) = torch.autograd.grad(loss, list(parameters.values()))
            return {"loss": loss.detach(), "slope": slope.norm()}

        step, found = Step(body, recorder, [], [noise]), []
        for epoch in range(8):
            progress.epoch.fill_(epoch)
            found += [float(value) for value in step(torch.zeros(1)).values()]
        return found

    tapes = Tapes()
    assert values(tapes) == values(Tapes(refuse=True))
    assert len(set(values(Tapes(refuse=True)))) > 12, "epochs differ"
    assert tapes.replays == 5


@pytest.mark.parametrize("name", ["darts", "barlow then all"])
def test_the_optimisers_that_can_be_recorded_step_as_the_others_do(name: str) -> None:
    """They step through memory, so gradients must lie in it as the weights do."""
    run, fused = make(name, epochs=1), make(name, Tapes(refuse=True), epochs=1)
    stop_after_two_steps(run)
    stop_after_two_steps(fused)
    assert fused.sgd.param_groups[0]["fused"]
    for a, b in zip(run.weights, fused.weights, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)
    if isinstance(run, SearchRun):
        for a, b in zip(run.alphas, fused.alphas, strict=True):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


class Stop(Exception):
    pass


def stop_after_two_steps(run: SearchRun | RetrainRun) -> None:
    calls = iter(range(1))

    def between() -> None:
        if next(calls, None) is None:
            raise Stop

    with pytest.raises(Stop):
        run.run_epoch(between)


def test_a_recorded_run_goes_on_from_its_checkpoint() -> None:
    whole, first, second = (make("all the trimmings", Tapes(), **SIZES) for _ in range(3))
    rows = finish(whole)
    kept = timeless(first.run_epoch())
    states = [through_a_file(first.state_dict()) for _ in range(2)]
    # A new run goes on, and one that has recordings already.
    for run, state in zip((second, first), states, strict=True):
        run.load_state_dict(state)
        assert [kept, *finish(run)] == rows
    assert second.recorder.recorded >= 1


def test_rates_are_numbers_between_steps() -> None:
    run = make("plain", Tapes(), **SIZES)
    rows = finish(run)
    assert [type(row["lr"]) for row in rows] == [float, float]
    assert rows[0]["lr"] > rows[1]["lr"]
    assert isinstance(run.sgd.state_dict()["param_groups"][0]["lr"], float)


def weight_and_step(body: str, recorder: Tapes) -> tuple[torch.Tensor, Step]:
    weight = torch.nn.Parameter(torch.zeros(4))
    optimiser = torch.optim.SGD([weight], 1.0, fused=True)

    def good(index: torch.Tensor) -> dict:
        weight.grad = torch.zeros(4).index_add(0, index, torch.ones(len(index)))
        optimiser.step()
        return {"sum": weight.detach().sum()}

    def asks(index: torch.Tensor) -> dict:
        means = good(index)
        return means | {"twice": 2 * float(means["sum"])}

    return weight, Step({"good": good, "asks": asks}[body], recorder, [optimiser], [])


def test_every_shape_has_a_recording_and_reads_its_own_indices() -> None:
    tapes = Tapes()
    weight, step = weight_and_step("good", tapes)
    sums = [
        float(step(torch.arange(start, start + size))["sum"])
        for start in range(4)
        for size in (1, min(2, 4 - start))
    ]
    assert weight.tolist() == [-2.0, -3.0, -3.0, -3.0]
    assert sums == [-1, -3, -4, -6, -7, -9, -10, -11]
    assert (tapes.recorded, tapes.replays) == (2, 2)


def test_a_step_that_asks_the_device_runs_unrecorded(caplog: pytest.LogCaptureFixture) -> None:
    tapes = Tapes()
    _, step = weight_and_step("asks", tapes)
    with caplog.at_level(logging.WARNING):
        twice = [step(torch.tensor([1, 2]))["twice"] for _ in range(5)]
    assert twice == [-4.0, -8.0, -12.0, -16.0, -20.0]
    assert tapes.recorded == 0
    assert [record.message for record in caplog.records] == [
        "the training step is not recorded, and slower for it: aten._local_scalar_dense.default"
    ]


def test_nothing_is_recorded_on_a_cpu_or_where_it_is_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert default_recorder(CPU) is None
    monkeypatch.setenv(recorded.SWITCH, "off")
    assert default_recorder(torch.device("cuda")) is None
    monkeypatch.setenv(recorded.SWITCH, "maybe")
    with pytest.raises(ValueError, match=r"NAS_SWEEPS_GRAPHS: unknown choice 'maybe'"):
        default_recorder(CPU)


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_a_step_touches_no_other_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``meta`` is a device without values: a tensor left on the CPU meets another device there,
    and whoever asks for a value gets an error."""
    meta = torch.device("meta")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it knows no meta
    monkeypatch.setattr(search, "InfiniteSampler", lambda *_: None)
    for module in (search, retrain):
        monkeypatch.setattr(module, "generator", lambda *_: None)
        monkeypatch.setattr(module, "EpochSampler", lambda *_: None)
    run = make(name, device=meta)
    index = torch.zeros(16, dtype=torch.int64, device=meta)
    # A search has steps with and without a batch of V.
    for inputs in ([index, index], [index]) if name in SEARCHES else ([index],):
        means = run.step(*inputs)
        assert all(v.device == meta for v in means.values() if isinstance(v, torch.Tensor))


# On a GPU. The tapes say that a recording may be trusted; these, that CUDA graphs are one.


@pytest.mark.gpu
@pytest.mark.parametrize("name", [*SEARCHES, *RETRAINS])
def test_cuda_graphs_are_replayed_and_learn_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda, losses = torch.device("cuda"), {}
    for switch in ("on", "off"):
        monkeypatch.setenv(recorded.SWITCH, switch)
        run = make(name, device=cuda, **SIZES)
        losses[switch] = [row["loss_weights"] for row in finish(run)]
        assert bool(run.step._recordings) == (switch == "on")
        assert not run.step._refused
    # Both draw the same crops, views and drops; sums may be taken in another order.
    assert losses["on"] == pytest.approx(losses["off"], rel=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["darts", "ssf_nas", "all the trimmings"])
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_half_precision_is_recorded_too(name: str, precision: str) -> None:
    run = make(name, device=torch.device("cuda"), precision=precision, **SIZES)
    rows = finish(run)
    assert run.step._recordings
    assert rows[-1]["loss_weights"] < 3 * rows[0]["loss_weights"]


@pytest.mark.gpu
def test_a_recorded_run_goes_on_from_its_checkpoint_on_a_gpu() -> None:
    cuda = torch.device("cuda")
    whole, first, second = (make("auxiliary", device=cuda, **SIZES) for _ in range(3))
    rows = finish(whole)
    first.run_epoch()
    second.load_state_dict(through_a_file(first.state_dict()))
    assert finish(second)[-1]["loss_weights"] == pytest.approx(rows[-1]["loss_weights"], rel=0.02)
