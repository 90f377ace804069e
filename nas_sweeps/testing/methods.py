"""What every search method promises the loop, whoever wrote it."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from nas_sweeps import methods
from nas_sweeps.methods import EdgeWeights, Method, Progress, build, get, resolve
from nas_sweeps.space.discretise import Discretised
from nas_sweeps.space.genotype import EDGES, OPERATIONS, alive_nodes
from nas_sweeps.testing.tiny import assert_goes_on, heavy_imports, tiny_bundle, tiny_search
from nas_sweeps.trial import Data, Distribution, SearchRecipe, SearchTrial, trial_from_json

EPOCHS = 20
SCALES = (0.0, 1e-3, 1.0, 3.0, 30.0)  # of random architecture parameters
OUTSIDE_THE_LOSS = {"order", "hvp", "rule", "fallback"}


def default(name: str, **knobs: Any) -> Method:
    """The method with these knobs."""
    return build(resolve(name, knobs))


def hints(name: str) -> dict[str, Any]:
    """The annotated type of every knob."""
    found = get_type_hints(get(name), include_extras=True)
    return {knob.name: found[knob.name] for knob in fields(get(name))}


def choices(name: str) -> list[dict[str, Any]]:
    """One knob at a time, every choice of every knob that is a list of choices.

    Those are left out that the method itself refuses without another knob.
    """
    found = []
    for knob, hint in hints(name).items():
        for value in get_args(hint) if get_origin(hint) is Literal else ():
            try:
                default(name, **{knob: value})
            except ValidationError:
                continue
            found.append({knob: value})
    return found


def draw(seed: int) -> torch.Generator:
    """A generator that starts from a seed."""
    return torch.Generator().manual_seed(seed)


def at(epoch: int, generator: torch.Generator | None = None) -> Progress:
    """The progress of a training in this epoch, of 20."""
    return Progress(torch.tensor(epoch, dtype=torch.float64), EPOCHS, generator)


def random_parameters(method: Method, seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    """Parameters of the method's names and shapes, normally distributed."""
    draws = draw(seed)
    initial = method.initial_parameters(len(EDGES), draws)
    return {
        name: (scale * torch.randn(p.shape, generator=draws)).requires_grad_()
        for name, p in initial.items()
    }


def read(method: Method, parameters: dict[str, Tensor]) -> Discretised:
    """The genotype of parameters, as the loop reads it."""
    with torch.no_grad():
        strengths = method.strengths(parameters, at(EPOCHS - 1))
    normal, reduce = (w.double().tolist() for w in strengths)
    return method.discretise(normal, reduce)


def architecture_gradients(name: str, **knobs: Any) -> dict[str, Tensor]:
    """Gradients of the architecture loss, regulariser included, away from the parameters' start."""
    run = tiny_search(resolve(name, knobs))
    drawn = random_parameters(run.method, seed=0)
    with torch.no_grad():
        for parameter, value in zip(run.alphas, drawn.values(), strict=True):
            parameter.copy_(value)
    index = tiny_bundle().v_index[:16]
    weights = run.method.edge_weights(run.parameters, run.progress)
    loss = run.model(run.arch_loss, run._batch(index, run.arch_loss, run.on_v), weights)[0]
    loss = loss + run.method.regulariser(run.parameters, weights, run.progress)
    return dict(zip(run.parameters, torch.autograd.grad(loss, run.alphas), strict=True))


class MethodContract:
    """Subclass it, parametrised by ``name``."""

    def tiny_knobs(self, name: str) -> dict[str, Any]:
        """Knobs that make a search quick: override it for a warm-up of many epochs, say."""
        return {}

    def test_initial_parameters_are_drawn_from_the_generator_alone(self, name: str) -> None:
        method = default(name)
        first, again = (method.initial_parameters(len(EDGES), draw(3)) for _ in range(2))
        assert list(first) == list(again)
        assert len({id(parameter) for parameter in first.values()}) == len(first) > 0
        for parameter, other in zip(first.values(), again.values(), strict=True):
            assert parameter.dtype == torch.float32
            assert torch.equal(parameter, other)

    def test_edge_weights_are_between_zero_and_one(self, name: str) -> None:
        method = default(name)
        columns = len(method.operations) + (method.partial_channels > 1)
        parameters = random_parameters(method, seed=2, scale=50)
        for generator in (None, draw(0)):
            for weights in method.edge_weights(parameters, at(1, generator)):
                assert weights.shape == (len(EDGES), columns)
                assert ((weights >= 0) & (weights <= 1)).all()
        for strengths in method.strengths(parameters, at(1)):
            assert strengths.shape == (len(EDGES), len(method.operations))

    def test_noise_comes_from_the_generator_alone(self, name: str) -> None:
        method = default(name)
        parameters = random_parameters(method, seed=2)

        def weights(generator: torch.Generator | None) -> EdgeWeights:
            return method.edge_weights(parameters, at(1, generator))

        for generators in ((None, None), (draw(5), draw(5))):
            for first, again in zip(*map(weights, generators), strict=True):
                assert torch.equal(first, again)

    def test_the_regulariser_is_a_finite_scalar_in_every_epoch(self, name: str) -> None:
        method = default(name)
        parameters = random_parameters(method, seed=1)
        for epoch in (0, 1, EPOCHS - 1):
            weights = method.edge_weights(parameters, at(epoch))
            value = torch.as_tensor(method.regulariser(parameters, weights, at(epoch)))
            assert value.shape == ()
            assert value.isfinite()

    def test_a_step_asks_no_tensor_for_its_value(self, name: str) -> None:
        """Tensors without values raise an error when one is asked for, where a GPU would wait."""
        for knobs in [{}, *choices(name)]:
            method = default(name, **knobs)
            parameters = {
                name: parameter.detach().to("meta")
                for name, parameter in random_parameters(method, seed=0).items()
            }
            progress = Progress(torch.zeros((), dtype=torch.float64, device="meta"), EPOCHS)
            weights = method.edge_weights(parameters, progress)
            method.regulariser(parameters, weights, progress)

    def test_gradients_of_the_architecture_loss_reach_every_parameter(self, name: str) -> None:
        """But for the strength of ``none``, which the task cannot see."""
        if not get(name).trains:
            pytest.skip("trains nothing")
        for knobs in [{}, *(k for k in choices(name) if not k.keys() & OUTSIDE_THE_LOSS)]:
            operations = default(name, **knobs).operations
            real = [o for o, operation in enumerate(operations) if operation != "none"]
            for gradient in architecture_gradients(name, **knobs).values():
                assert gradient.isfinite().all()
                seen = gradient[:, real] if gradient.shape[1:] == (len(operations),) else gradient
                assert (seen != 0).all()

    def test_operations_are_known_and_different(self, name: str) -> None:
        for knobs in [{}, *choices(name)]:
            operations = default(name, **knobs).operations
            assert set(operations) <= set(OPERATIONS)
            assert len(set(operations)) == len(operations)

    @pytest.mark.parametrize("scale", SCALES)
    def test_any_parameters_give_a_genotype_with_two_living_cells(
        self, name: str, scale: float
    ) -> None:
        for knobs in [k for k in [{}, *choices(name)] if k != {"fallback": "error"}]:
            for seed in range(5):
                method = default(name, **knobs)
                genotype = read(method, random_parameters(method, seed, scale)).genotype
                assert alive_nodes(genotype.normal)
                assert alive_nodes(genotype.reduce)

    def test_a_tiny_search_ends_and_goes_on_from_a_checkpoint(self, name: str) -> None:
        spec = resolve(name, self.tiny_knobs(name))
        whole, first, second = (tiny_search(spec) for _ in range(3))
        assert_goes_on(whole, first, second)
        assert alive_nodes(whole.outcome().genotype.normal)

    # Knobs

    def test_knobs_survive_resolving_building_and_a_file(self, name: str) -> None:
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

    def test_unknown_knobs_are_refused(self, name: str) -> None:
        with pytest.raises(ValidationError, match="learning_rate_of_alpha"):
            resolve(name, {"learning_rate_of_alpha": 0.1})

    @pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "no such choice"])
    def test_every_knob_refuses_what_is_out_of_its_range(self, name: str, value: Any) -> None:
        for knob in hints(name):
            with pytest.raises(ValidationError) as refused:
                resolve(name, {knob: value})
            assert refused.value.errors()[0]["loc"][0] == knob

    def test_all_mistakes_are_reported_at_once(self, name: str) -> None:
        with pytest.raises(ValidationError) as refused:
            resolve(name, {"arch_lr": 0, "arch_beta1": 1, "nonsense": None})
        assert refused.value.error_count() == 3

    def test_planning_does_not_import_torch(self, name: str) -> None:
        assert name in methods.names()
        module = get(name).__module__
        planned = f"methods.build(methods.resolve({name!r}, {{}}))"
        assert heavy_imports(f"import {module}\nfrom nas_sweeps import methods\n{planned}") == []
