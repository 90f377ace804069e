"""The short forms of a grid file, unfolded: ``{exp: [0.1, 0.01]}``, ``seeds: 3``, presets.

Each function takes what YAML gave and returns what the model wants, or the value as it is
where pydantic's own message will do. ``short`` functions are the way back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from pydantic import ValidationInfo, WrapValidator

from nas_sweeps.data.datasets import DATASETS
from nas_sweeps.data.samplers import SAMPLERS
from nas_sweeps.grid.choice import chosen, said_with
from nas_sweeps.grid.messages import (
    Problems,
    checked,
    number_meant,
    problem,
    shown,
    unknown,
)
from nas_sweeps.grid.ranges import method_spec, tuned_method
from nas_sweeps.losses import LOSSES
from nas_sweeps.recipes import complaints
from nas_sweeps.registry import Registry
from nas_sweeps.store.records import ACCURACIES
from nas_sweeps.trial import (
    Barlow,
    Distribution,
    MethodSpec,
    Pretrain,
    RetrainRecipe,
    SearchRecipe,
)
from nas_sweeps.tuning import COSTS, MEASURES, ranges_of

# Of one grid, whose plan is held in memory: with what it will take, 30 us and 1.2 KiB a trial.
MAX_TRIALS = 2_000_000
TOO_MANY = (
    f"a grid holds at most {MAX_TRIALS:,} trials: split it into several files, by search.seeds "
    "say, and run them into one --store"
)
OBJECTIVE = MEASURES[1]  # unless told otherwise: V has as long a tail as T
KINDS = ("balance", "exp", "step", "uniform", "natural")
_WHOLE = ("balance", "natural")  # those that need no number
_FORMS = (
    "balance, natural, exp, step, {exp: 0.1}, {step: [0.1, 0.01]}, {uniform: 20431}, "
    "{natural: {n_max: 1000}}"
)

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "search": {
        "paper": {},  # section IV-C: the defaults of SearchRecipe
        "darts": {"epochs": 50, "batch_size": 64},  # DARTS train_search.py
        "fairdarts": {"epochs": 50, "batch_size": 128, "lr": 0.005},  # FairDARTS train_search.py
        "pc_darts": {"epochs": 50, "batch_size": 256, "lr": 0.1},  # PC-DARTS train_search.py
    },
    "retrain": {
        "paper": {},  # section IV-C: the defaults of RetrainRecipe
        "darts": {  # DARTS train.py with --auxiliary --cutout, as its README runs it
            "channels": 36,
            "layers": 20,
            "epochs": 600,
            "batch_size": 96,
            "lr_min": 0.0,
            "cutout": 16,
            "auxiliary": 0.4,
            "drop_path": 0.2,
        },
        # For accuracy on long tails; experiments/ablation.yaml takes its parts away one by one.
        "strong": {
            "channels": 36,  # as DARTS: 3.3 million weights of DARTS_V2
            "layers": 20,
            "auxiliary": 0.4,
            "drop_path": 0.2,
            "epochs": 400,  # strong augmentation learns slowly: DARTS has 600, TrivialAugment 200
            "batch_size": 128,
            "lr": 0.05,  # DARTS' 0.025 at 96, times nearly as much as Nesterov and warm-up allow
            "lr_min": 0.0,
            "nesterov": True,  # with warm-up, of TrivialAugment's training, arXiv 2103.10158
            "warmup_epochs": 5,  # LDAM-DRW cifar_train.py too
            "weight_decay": 5e-4,  # more than DARTS: it evens classes out, arXiv 2203.14197
            "ema": 0.999,  # arXiv 1703.01780
            "policy": "trivial_augment",  # arXiv 2103.10158: as good as searched policies
            "cutmix": 1.0,  # arXiv 1905.04899, its settings for CIFAR; in cutout's place
            "mix_probability": 0.5,
            "loss": "logit_adjust",  # arXiv 2007.07314: consistent for the balanced error
            "precision": "bf16",  # a third faster than tf32 on an H200
            "test_every": 10,
        },
    },
}


def section(value: Any) -> Any:
    """An empty section means its defaults."""
    return {} if value is None else value


def listed(value: Any) -> Any:
    """One value stands for a list of one; a list, from JSON, becomes the tuple of a model."""
    if value is None or isinstance(value, dict):
        return value
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def seeds(value: Any) -> Any:
    """``3`` for 0, 1, 2; a list as it is."""
    if isinstance(value, str) and (meant := _seeds_meant(value)):
        raise problem(f"{shown(value)} is not a number of seeds; {meant}")
    if not isinstance(value, int) or isinstance(value, bool):
        return listed(value)
    if value > MAX_TRIALS:
        raise problem(f"{shown(value)} seeds; {TOO_MANY}")
    if value < 1:
        raise problem(f"{shown(value)} is not a number of seeds; write 3 for 0, 1, 2, or a list")
    return tuple(range(value))


def _seeds_meant(text: str) -> str:
    """How to write a range or a list of seeds that is written otherwise; or nothing."""
    advice = "write a list of them, or a number: 3 stands for 0, 1, 2"
    if re.fullmatch(r"\d+(, *\d+)+", text):
        return advice.replace("a list of them", f"[{text}]")
    span = re.fullmatch(r"(\d+) *(?::|\.\.|-) *(\d+)", text)
    if span is None:
        return ""
    first, last = int(span[1]), int(span[2])
    if 0 < last - first < 9:
        return advice.replace("a list of them", f"{[*range(first, last + 1)]}")
    return advice


def seed_or_trial(value: Any) -> Any:
    """A seed, or ``trial``: the seed of whichever trial uses the data."""
    if value == "trial" or (type(value) is int and 0 <= value < 2**32):
        return value
    raise problem(f"{shown(value)} is not a seed; write a whole number from 0 up, or trial")


def recipe(phase: str) -> WrapValidator:
    """Replace ``preset`` by the settings it names; settings beside it win."""
    presets = PRESETS[phase]

    def unfold(value: Any, found: Problems) -> Any:
        if not isinstance(value, dict):
            return section(value)
        preset = value.get("preset", "paper")
        if not isinstance(preset, str) or preset not in presets:
            found.add(unknown("preset", preset, presets), "preset")
            preset = "paper"
        if "pretrain" in value:
            found.add(
                "is not part of a recipe: set retrain.pretrain and retrain.barlow", "pretrain"
            )
        own = {key: value[key] for key in value if key not in ("preset", "pretrain")}
        settings = _chosen(presets[preset] | own, found)
        stage = settings.get("classifier_stage")
        if isinstance(stage, dict):
            settings["classifier_stage"] = _chosen(stage, found, "classifier_stage")
        return settings

    return checked(unfold, _complain)


def _complain(made: SearchRecipe | RetrainRecipe, found: Problems) -> None:
    for setting, wrong in complaints(made):
        found.add(f"{setting.rpartition('.')[2]} {wrong}", *setting.split("."))


def _chosen(settings: dict[str, Any], found: Problems, *place: str) -> dict[str, Any]:
    """The settings, with the losses and samplers among them as recipes hold them."""
    registries: dict[str, Registry[Any]] = {"loss": LOSSES, "sampler": SAMPLERS}
    return settings | {
        name: chosen(registry, settings[name], found, *place, name)
        for name, registry in registries.items()
        if name in settings
    }


WINNERS = ("each", "best_of_seeds", "none")


def winners(value: Any) -> str | tuple[int, ...]:
    """``each``, ``best_of_seeds``, ``none``, or ``{epochs: [10, 20]}`` as its epochs in order."""
    if not isinstance(value, dict):
        if value not in WINNERS:
            raise problem(unknown("choice", value, WINNERS))
        return str(value)
    epochs = listed(value.get("epochs"))
    whole = isinstance(epochs, tuple) and all(type(e) is int and e > 0 for e in epochs)
    if set(value) != {"epochs"} or not whole or not epochs:
        raise problem(f"{shown(value)} are no epochs of a search; write {{epochs: [10, 20, 40]}}")
    return tuple(sorted(set(epochs)))


def short_winners(value: str | tuple[int, ...]) -> Any:
    return value if isinstance(value, str) else {"epochs": list(value)}


def by_preset(value: Any) -> Any:
    """A preset's name stands for its settings."""
    return {"preset": value} if isinstance(value, str) else value


def recipes(value: Any, found: Problems) -> Any:
    """``{paper: paper, strong: {preset: darts, epochs: 100}}``: recipes by a name of one's own."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        found.add(
            f"must hold recipes by name, such as {{paper: paper, long: {{epochs: 600}}}}, "
            f"not {shown(value)}"
        )
        return {}
    for name in value:
        if not re.fullmatch(r"\w[\w.-]{0,31}", name):
            found.add(
                "is to stand in tables: name a recipe with at most 32 letters, digits and _ . -",
                name,
            )
    return value


def resources(value: Any, found: Problems) -> Any:
    """A section, or nothing; devices are shared out in fractions or given whole."""
    gpus = value.get("gpus") if isinstance(value, dict) else None
    if isinstance(gpus, float) and gpus > 1 and not gpus.is_integer():
        found.add(f"{gpus:g} GPUs cannot be shared out; above 1 write a whole number", "gpus")
    return section(value)


def pretrain(value: Any, found: Problems) -> Any:
    """The flat ``retrain.barlow`` section as a ``Pretrain`` with a ``Barlow`` inside."""
    if not isinstance(value, dict):
        return section(value)
    inner = {field.name for field in fields(Barlow)}
    outer: dict[str, Any] = {key: value[key] for key in value if key not in inner}
    if "barlow" in outer:
        found.add("write its settings one level up", "barlow")
    return outer | {"barlow": {key: value[key] for key in value if key in inner}}


def short_pretrain(value: Pretrain) -> dict[str, Any]:
    loss = {field.name: getattr(value.barlow, field.name) for field in fields(Barlow)}
    return {"epochs": value.epochs, "then": value.then} | loss


def objectives(value: Any) -> tuple[str, ...]:
    """What a study maximises, and with it what it minimises, if anything.

    Accuracy is that of the validation half, which no result is read from.
    """
    named = tuple(value) if isinstance(value, list) else (value,)
    for name in named:
        if name in ACCURACIES and name not in MEASURES:
            raise problem(
                f"{name} is measured on a test set, and what is tuned on it has seen it: its "
                f"results would no longer be of unseen images; write {OBJECTIVE}"
            )
        if name not in (*MEASURES, *COSTS):
            raise problem(unknown("objective", name, [*MEASURES, *COSTS]))
    if [name in COSTS for name in named] not in ([False], [False, True], [True, False]):
        raise problem(
            f"name {' or '.join(MEASURES)}, alone or with {' or '.join(COSTS)}: "
            f"[{OBJECTIVE}, {COSTS[0]}]"
        )
    return tuple(sorted(named, key=COSTS.__contains__))


def pareto(value: Any) -> Any:
    """How many points of a Pareto set are gone on with: a number, or all."""
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if value in (None, "all") or whole:
        return value
    raise problem(f"{shown(value)} is no number of points; write one from 1, or all")


def method_specs(value: Any) -> Any:
    """``[darts, {fairdarts: {zero_one: l1}}]`` with every knob resolved; ranges stay ranges."""
    if not isinstance(value, (list, tuple)):
        return value
    found = Problems()
    given = [tuned_method(entry, found, index) for index, entry in enumerate(value)]
    found.check()
    return tuple(dict.fromkeys(method_spec(*one) for one in given if one))


def dataset(name: str) -> str:
    """The name of a registered data set."""
    if name not in DATASETS.names():
        raise problem(unknown("data set", name, DATASETS.names()))
    return name


def short_method(spec: MethodSpec) -> dict[str, Any]:
    knobs = dict(spec.knobs)
    ranges = {k: said_with(span, knobs.get(k)) for k, span in ranges_of(spec)}
    return {spec.name: knobs | ranges}


def distributions(value: Any, info: ValidationInfo) -> Any:
    """``[balance, exp, {step: 0.01}]``, where ``search.mu`` completes a bare ``exp``."""
    if not isinstance(value, (list, tuple)):
        return value
    found = Problems()
    mus = info.data.get("mu")  # None: it is wrong itself, and reported as such
    cells: list[Distribution] = []
    bare: set[str] = set()
    for index, entry in enumerate(value):
        if entry in ("exp", "step") and mus is not None:
            if entry not in bare:
                cells += [Distribution(kind=entry, mu=mu) for mu in mus]
            bare.add(entry)
            if not mus:
                found.add(f"needs a mu: list search.mu, or write {{{entry}: 0.1}}", index)
        elif entry not in ("exp", "step"):
            cells += _distributions(entry, found, index)
    found.check()
    return tuple(dict.fromkeys(cells))


def _distributions(entry: Any, found: Problems, *place: str | int) -> Iterable[Distribution]:
    if entry in _WHOLE:
        return [Distribution(kind=entry)]
    kind, values = next(iter(entry.items())) if isinstance(entry, dict) and entry else (entry, ())
    if kind not in KINDS:
        found.add(unknown("distribution", kind, KINDS), *place)
    elif not isinstance(entry, dict) or len(entry) != 1 or kind == "balance":
        found.add(f"{shown(entry)} is not a distribution; write one of {_FORMS}", *place)
    elif kind == "natural":
        return _capped(values, found, *place, kind)
    else:
        many = isinstance(values, (list, tuple))
        return [
            made
            for number, one in enumerate(values if many else [values])
            if (made := _one(kind, one, found, *place, kind, *([number] if many else [])))
        ]
    return []


def _one(kind: Any, value: Any, found: Problems, *place: str | int) -> Distribution | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "uniform":
        if type(value) is int and value > 0:
            return Distribution(kind=kind, total=value)
        meant = number_meant(value) or "; write 20431"
        found.add(f"{shown(value)} is not a number of training images{meant}", *place)
    elif number and 0 < value <= 1:
        return Distribution(kind=kind, mu=float(value))
    else:
        hint = (
            f"; for an imbalance ratio of {value:g} write {1 / value:.3g}"
            if number and value > 1
            else number_meant(value)
        )
        found.add(f"{shown(value)} is not a mu, the tail-to-head ratio in (0, 1]{hint}", *place)
    return None


def _capped(value: Any, found: Problems, *place: str | int) -> list[Distribution]:
    """``{n_max: 1000}``, or a list of numbers in it: the natural counts, and no class above."""
    caps = listed(value["n_max"]) if isinstance(value, dict) and [*value] == ["n_max"] else None
    if not isinstance(caps, tuple) or not all(type(cap) is int and cap > 0 for cap in caps):
        form = "{natural: {n_max: 1000}}, the most images that a class keeps, or natural"
        found.add(f"{shown(value)} is not known here; write {form}", *place)
        return []
    return [Distribution(kind="natural", n_max=cap) for cap in caps]


def short_distribution(cell: Distribution) -> str | dict[str, Any]:
    if cell.kind == "natural" and cell.n_max is not None:
        return {"natural": {"n_max": cell.n_max}}
    if cell.kind in _WHOLE:
        return cell.kind
    return {cell.kind: cell.total if cell.kind == "uniform" else cell.mu}


def long_tailed_test(value: Any) -> Distribution | None:
    """``match`` for that of the training images, ``natural``, ``{exp: mu}`` or ``{step: mu}``."""
    if value == "match":
        return None
    if value == "natural":
        return Distribution(kind="natural")
    if not isinstance(value, dict) or not {"exp", "step"} & set(value):
        raise problem(
            f"{shown(value)} is not known; choose from match, natural, {{exp: 0.1}}, {{step: 0.1}}"
        )
    found = Problems()
    cells = list(_distributions(value, found))
    if not found and len(cells) != 1:
        found.add("name one mu: there is one long-tailed test set")
    found.check()
    return cells[0]
