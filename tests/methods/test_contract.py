"""What every registered method promises the search loop, whoever wrote it."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from nas_sweeps import methods
from nas_sweeps.methods import Method, build, get, names, resolve
from nas_sweeps.space.discretise import Discretised
from nas_sweeps.space.genotype import EDGES, OPERATIONS, alive_nodes
from nas_sweeps.space.supernet import Supernet
from nas_sweeps.train.losses import Projector, barlow_twins
from nas_sweeps.trial import Data, Distribution, SearchRecipe, SearchTrial, trial_from_json

every_method = pytest.mark.parametrize("name", names())


def default(name: str, **knobs: Any) -> Method:
    return build(resolve(name, knobs))


def hints(name: str) -> dict[str, Any]:
    """The annotated type of every knob."""
    found = get_type_hints(get(name), include_extras=True)
    return {knob.name: found[knob.name] for knob in fields(get(name))}


def choices(name: str) -> list[dict[str, Any]]:
    """One knob at a time, every choice of every knob that is a list of choices."""
    return [
        {knob: value}
        for knob, hint in hints(name).items()
        if get_origin(hint) is Literal
        for value in get_args(hint)
        if not (knob == "fallback" and value == "relative" and "threshold" not in hints(name))
    ]


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_alphas(method: Method, seed: int, scale: float = 1.0) -> list[Tensor]:
    shape, draws = (len(EDGES), len(method.operations)), draw(seed)
    return [(scale * torch.randn(shape, generator=draws)).requires_grad_() for _ in range(2)]


def read(method: Method, alphas: list[Tensor]) -> Discretised:
    normal, reduce = (method.edge_weights(a.detach()).double().tolist() for a in alphas)
    return method.discretise(normal, reduce)


def architecture_loss(method: Method, alphas: list[Tensor]) -> Tensor:
    """The method's architecture objective on a small supernet, regulariser included."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        supernet = Supernet(4, 3, 10, method.operations)
        projector = Projector(supernet.feature_dim, 16, 8)
    weights = [method.edge_weights(a) for a in alphas]
    views = torch.randn(2, 4, 3, 8, 8, generator=draw(0))
    features = [supernet.features(x, *weights) for x in views]
    loss = torch.zeros(())
    if method.arch_objective != "barlow":
        loss = loss + F.cross_entropy(supernet.classifier(features[0]), torch.arange(4))
    if method.arch_objective != "supervised":
        assert method.barlow is not None
        z = [projector(f) for f in features]
        loss = loss + barlow_twins(*z, lambda_=0.0051, centered=method.barlow.centered)
    return loss + method.regulariser(weights)


@every_method
def test_gradients_of_the_architecture_loss_reach_every_real_operation(name: str) -> None:
    outside_the_loss = {"order", "hvp", "rule", "fallback"}
    for knobs in [{}, *(k for k in choices(name) if not k.keys() & outside_the_loss)]:
        method = default(name, **knobs)
        alphas = random_alphas(method, seed=0)
        for gradient in torch.autograd.grad(architecture_loss(method, alphas), alphas):
            assert gradient.isfinite().all()
            real = [o for o, op in enumerate(method.operations) if op != "none"]
            assert (gradient[:, real] != 0).all()


@every_method
def test_the_regulariser_is_a_finite_scalar_of_all_weights(name: str) -> None:
    method = default(name)
    weights = [method.edge_weights(a) for a in random_alphas(method, seed=1)]
    assert torch.as_tensor(method.regulariser(weights)).shape == ()
    assert torch.as_tensor(method.regulariser(weights)).isfinite()


@every_method
def test_initial_alpha_is_drawn_from_the_generator_alone(name: str) -> None:
    method = default(name)
    first, again = (method.initial_alpha(len(EDGES), draw(3)) for _ in range(2))
    assert first.shape == (len(EDGES), len(method.operations))
    assert first.dtype == torch.float32
    assert torch.equal(first, again)


@every_method
def test_edge_weights_are_between_zero_and_one(name: str) -> None:
    method = default(name)
    for alpha in random_alphas(method, seed=2, scale=50):
        weights = method.edge_weights(alpha)
        assert weights.shape == alpha.shape
        assert ((weights >= 0) & (weights <= 1)).all()


@every_method
def test_operations_are_known_and_can_be_knobbed(name: str) -> None:
    for knobs in choices(name):
        operations = default(name, **knobs).operations
        assert set(operations) <= set(OPERATIONS)
        assert len(set(operations)) == len(operations)


@every_method
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), scale=st.sampled_from([0.0, 1e-3, 1.0, 3.0, 30.0]))
def test_any_alpha_gives_a_genotype_with_two_living_cells(
    name: str, seed: int, scale: float
) -> None:
    for knobs in choices(name):
        if knobs == {"fallback": "error"}:
            continue
        method = default(name, **knobs)
        genotype = read(method, random_alphas(method, seed, scale)).genotype
        assert alive_nodes(genotype.normal)
        assert alive_nodes(genotype.reduce)


@every_method
def test_a_rule_that_keeps_nothing_records_its_fallback_or_refuses(name: str) -> None:
    for knobs in [k for k in choices(name) if "rule" in k]:
        method = default(name, **knobs)
        alphas = random_alphas(method, seed=0, scale=0.0)
        found = read(method, alphas)
        if found.fallback_used:
            with pytest.raises(ValueError, match="keeps 0 edges"):
                read(default(name, **knobs, fallback="error"), alphas)
        assert found.rule == knobs["rule"]


@every_method
def test_objectives_that_need_barlow_twins_bring_it(name: str) -> None:
    for knobs in choices(name):
        method = default(name, **knobs)
        objectives = {method.weight_objective, method.arch_objective}
        assert objectives <= set(get_args(methods.Objective))
        assert objectives == {"supervised"} or method.barlow is not None


# Knobs


@every_method
def test_knobs_survive_resolving_building_and_a_file(name: str) -> None:
    some: list[dict[str, Any]] = [{}, {"arch_lr": 1}, {"arch_lr": "2e-3"}, *choices(name)]
    for knobs in some:
        spec = resolve(name, knobs)
        method = build(spec)
        assert resolve(name, asdict(method)) == spec
        assert [knob for knob, _ in spec.knobs] == sorted(hints(name))
        trial = SearchTrial(
            data=Data(dataset="digits", label="digits"),
            distribution=Distribution(kind="balance"),
            method=spec,
            recipe=SearchRecipe(),
            seed=0,
        )
        kept = trial_from_json(trial.to_json())
        assert kept.trial_id == trial.trial_id
        assert isinstance(kept, SearchTrial)
        assert build(kept.method) == method


@every_method
def test_unknown_knobs_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="learning_rate_of_alpha"):
        resolve(name, {"learning_rate_of_alpha": 0.1})


@every_method
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "no such choice"])
def test_every_knob_refuses_what_is_out_of_its_range(name: str, value: Any) -> None:
    for knob in hints(name):
        with pytest.raises(ValidationError) as refused:
            resolve(name, {knob: value})
        assert refused.value.errors()[0]["loc"][0] == knob


@every_method
def test_all_mistakes_are_reported_at_once(name: str) -> None:
    with pytest.raises(ValidationError) as refused:
        resolve(name, {"arch_lr": 0, "arch_beta1": 1, "nonsense": None})
    assert refused.value.error_count() == 3


# The file


@every_method
def test_a_method_is_one_short_file(name: str) -> None:
    lines = Path(inspect.getfile(get(name))).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120


@every_method
def test_planning_with_a_method_does_not_import_torch(name: str) -> None:
    program = (
        "import sys; from nas_sweeps import methods; "
        f"methods.build(methods.resolve({name!r}, {{}})); "
        "print(sorted({'torch', 'torchvision', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
