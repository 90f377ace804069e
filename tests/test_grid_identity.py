"""Golden identities: stores that people have must stay readable.

If a test here fails, finished trials would silently be computed again. Either the change was
not meant to alter what a trial is, and is to be undone, or SCHEMA_VERSION goes up.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import combinations
from typing import Any

import pytest

from nas_sweeps import methods
from nas_sweeps.grid import Grid, plan
from nas_sweeps.phases import PHASES
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.space.published import published
from nas_sweeps.trial import (
    Barlow,
    Data,
    Distribution,
    MethodSpec,
    Pretrain,
    RetrainRecipe,
    RetrainTrial,
    SearchRecipe,
    SearchTrial,
    Trial,
    absent_values,
    added,
    trial_from_json,
)
from nas_sweeps.trial import spec as spec_module

DIGITS = Data(dataset="digits", label="digits", image_size=16)
EXP = Distribution(kind="exp", mu=0.1)
DARTS = MethodSpec(name="darts", knobs=(("arch_lr", 3e-4), ("order", "first")))
SEARCH = SearchTrial(data=DIGITS, distribution=EXP, method=DARTS, recipe=SearchRecipe(), seed=0)
RETRAIN = RetrainTrial(
    data=DIGITS,
    distribution=Distribution(kind="balance"),
    genotype=published("DARTS_V2"),
    recipe=RetrainRecipe(pretrain=Pretrain()),
    seed=1,
)

# Every field that may be absent is there, and none has its default.
OWN_DATA = Data(
    dataset="custom",
    label="mine",
    fingerprint="0123456789abcdef" * 4,
    image_size=24,
    n_max=500,
    test_n_max=50,
    subset_seed=3,
    split_seed=4,
    class_order_seed=5,
    long_tailed_test=Distribution(kind="step", mu=0.25),
)
OWN_METHOD = MethodSpec(
    name="somebodys",
    knobs=(("fast", True), ("name", "é"), ("none", None), ("rate", 1e-7), ("shape", (1.0, 0.5))),
)
OWN_SEARCH = SearchTrial(
    data=OWN_DATA,
    distribution=Distribution(kind="uniform", mu=0.5, total=20431),
    method=OWN_METHOD,
    recipe=SearchRecipe(
        channels=8,
        layers=5,
        epochs=3,
        batch_size=32,
        lr=0.05,
        lr_min=0.002,
        momentum=0.8,
        weight_decay=1e-4,
        grad_clip=3.5,
        augment="crop",
        loss="ldam",
        bn_stats_in_arch_step="freeze",
        test_every=2,
        precision="bf16",
    ),
    seed=4294967295,
)
OWN_RETRAIN = RetrainTrial(
    data=OWN_DATA,
    distribution=Distribution(kind="step", mu=0.02, total=7),
    genotype=Genotype((("sep_conv_3x3", 0, 2), ("skip_connect", 1, 2)), (("max_pool_3x3", 1, 3),)),
    recipe=RetrainRecipe(
        channels=36,
        layers=20,
        epochs=600,
        batch_size=96,
        lr=0.03,
        lr_min=0.0,
        momentum=0.7,
        weight_decay=0.0,
        grad_clip=2.5,
        augment="none",
        cutout=16,
        auxiliary=0.4,
        drop_path=0.2,
        drop_path_on="node",
        images="search_half",
        loss="focal",
        pretrain=Pretrain(
            epochs=9,
            then="linear",
            barlow=Barlow(lambda_=0.01, dim=64, hidden=32, centered=False, scale=0.125),
        ),
        test_every=5,
        precision="tf32",
    ),
    seed=12,
)
CIFAR = Data(dataset="cifar10", label="cifar10")
BY_METHOD = {
    name: SearchTrial(
        data=CIFAR,
        distribution=EXP,
        method=methods.resolve(name, {}),
        recipe=SearchRecipe(),
        seed=0,
    )
    for name in ("darts", "fairdarts", "ssf_nas")
}
IDS = {
    "s-fb178769b3878306": SEARCH,
    "r-2a70c158ae03b791": RETRAIN,
    "r-9b549ee16187567b": replace(RETRAIN, recipe=RetrainRecipe()),
    "s-b32e1c408caad7f6": BY_METHOD["darts"],
    "s-e315e232cbf38732": BY_METHOD["fairdarts"],
    "s-95066f05e1c87e42": BY_METHOD["ssf_nas"],
    "s-df1d36e94914abb4": replace(SEARCH, data=Data(dataset="cifar100", label="c")),
    "s-456cb1af0e0d6206": OWN_SEARCH,
    "r-7d8bca7f8a0d0bf7": OWN_RETRAIN,
}


@pytest.mark.parametrize(("trial_id", "spec"), IDS.items(), ids=IDS)
def test_fixed_specs_keep_their_ids(trial_id: str, spec: Trial) -> None:
    assert spec.trial_id == trial_id


@pytest.mark.parametrize("spec", IDS.values(), ids=IDS)
def test_specs_survive_json_with_their_ids(spec: Trial) -> None:
    again = trial_from_json(spec.to_json())
    assert again == spec
    assert again.trial_id == spec.trial_id


def test_a_method_with_the_defaults_of_today_plans_the_trials_of_today() -> None:
    tree = {
        "data": {"dataset": "cifar10"},
        "search": {"methods": list(BY_METHOD), "distributions": [{"exp": 0.1}]},
    }
    planned = [search.trial_id for search in plan(Grid.from_dict(tree)).searches]
    assert planned == ["s-b32e1c408caad7f6", "s-e315e232cbf38732", "s-95066f05e1c87e42"]


def test_the_schema_version_is_hashed_with_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = json.loads(SEARCH.to_json())
    del spec["data"]["label"]
    spec["recipe"]["grad_clip"] = 5  # 5.0 and 5 are one identity
    for part, kind in (("data", Data), ("distribution", Distribution), ("recipe", SearchRecipe)):
        for name, default in absent_values(kind).items():  # came later: its default is left out
            assert spec[part].pop(name) == default
    hashed = json.dumps(spec | {"schema": 1}, sort_keys=True, separators=(",", ":"))
    assert SEARCH.trial_id == f"s-{hashlib.sha256(hashed.encode()).hexdigest()[:16]}"
    monkeypatch.setattr(spec_module, "SCHEMA_VERSION", 2)
    assert replace(SEARCH).trial_id != "s-fb178769b3878306"


# Fields that are added later


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterRecipe(SearchRecipe):
    """A recipe of a later version: averaged weights, and a default that is not what was before."""

    ema: float = added(0.0)
    warm_up: int = added(5, absent=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterSearch(SearchTrial):
    recipe: LaterRecipe


FIRST_FIELDS = {  # of identities as they were at first; whatever else there is was added
    Data: "dataset label fingerprint image_size n_max test_n_max subset_seed split_seed "
    "class_order_seed long_tailed_test",
    Distribution: "kind mu total",
    MethodSpec: "name knobs",
    SearchRecipe: "channels layers epochs batch_size lr lr_min momentum weight_decay grad_clip "
    "augment loss bn_stats_in_arch_step test_every precision",
    RetrainRecipe: "channels layers epochs batch_size lr lr_min momentum weight_decay grad_clip "
    "augment cutout auxiliary drop_path drop_path_on images loss pretrain test_every precision",
    Pretrain: "epochs then barlow",
    Barlow: "lambda_ dim hidden centered scale",
    SearchTrial: "phase data distribution method recipe seed",
    RetrainTrial: "phase data distribution genotype recipe seed",
    Genotype: "normal reduce",
}


@pytest.mark.parametrize("kind", FIRST_FIELDS, ids=lambda kind: kind.__name__)
def test_every_field_is_one_of_the_first_or_was_added(kind: type) -> None:
    later = {field.name for field in fields(kind)} - set(FIRST_FIELDS[kind].split())
    assert later == set(absent_values(kind)), "make a new field of a spec with trial.added"


def test_a_new_field_changes_the_id_only_where_it_changes_what_is_computed() -> None:
    def later(**values: Any) -> str:
        return replace(SEARCH, recipe=LaterRecipe(**values)).trial_id

    assert later(warm_up=0) == "s-fb178769b3878306", "as before there was such a field"
    assert len({later(), later(warm_up=0), later(ema=0.5), later(ema=0.5, warm_up=0)}) == 4


def test_a_spec_of_an_earlier_version_is_read_as_it_was_meant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PHASES.get("search"), "spec", LaterSearch)
    read = trial_from_json(SEARCH.to_json())
    assert isinstance(read, LaterSearch)
    assert (read.recipe.ema, read.recipe.warm_up) == (0.0, 0)
    assert read.trial_id == SEARCH.trial_id
    explicit = replace(read, recipe=replace(read.recipe, warm_up=5))
    assert trial_from_json(explicit.to_json()) == explicit


def test_a_new_knob_of_a_method_orphans_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    from nas_sweeps.methods.darts import DARTS as Darts

    @dataclass(frozen=True, slots=True, kw_only=True)
    class LaterDarts(Darts):
        anneal: float = added(0.5, absent=0.0)

    monkeypatch.setitem(methods.METHODS.known, "darts", LaterDarts)
    later, as_before = methods.resolve("darts", {}), methods.resolve("darts", {"anneal": 0.0})
    assert as_before == BY_METHOD["darts"].method
    assert later != as_before
    assert methods.build(as_before).anneal == 0.0  # type: ignore[attr-defined]
    assert methods.build(later).anneal == 0.5  # type: ignore[attr-defined]
    assert (methods.variant(as_before), methods.variant(later)) == ("anneal=0", "")


def test_an_id_is_computed_once_and_travels_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Trial] = []
    original = spec_module._digest
    monkeypatch.setattr(spec_module, "_digest", lambda of: hashed.append(of) or original(of))
    spec = replace(SEARCH)
    assert spec.trial_id == spec.trial_id
    assert len(hashed) == 1
    for copy in (pickle.loads(pickle.dumps(spec)), replace(spec, seed=1)):
        assert copy.trial_id == replace(copy).trial_id
    assert spec == SEARCH


def changes(value: Any) -> Iterator[tuple[str, Any]]:
    """Every way to change a single thing inside a value, with a name for it."""
    if isinstance(value, Genotype):
        yield "", published("DARTS_V2")
        yield ".swapped", Genotype(value.reduce, value.normal)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            for name, changed in changes(getattr(value, field.name)):
                yield f".{field.name}{name}", replace(value, **{field.name: changed})
            if "None" in str(field.type) and getattr(value, field.name) is not None:
                yield f".{field.name} absent", replace(value, **{field.name: None})
    elif isinstance(value, tuple):
        yield " shorter", value[:-1]
        for index, item in enumerate(value):
            for name, changed in changes(item):
                yield f"[{index}]{name}", (*value[:index], changed, *value[index + 1 :])
    elif isinstance(value, bool):
        yield "", not value
    elif isinstance(value, (int, float)):
        yield "", value + 1
        yield " by little", value * (1 + 1e-9) or 1e-9
    else:
        yield "", f"{value or ''}x"


def test_the_walk_reaches_every_field() -> None:
    reached = {name for spec in (OWN_SEARCH, OWN_RETRAIN) for name, _ in changes(spec)}
    for kind, at in (
        (Data, ".data"), (Distribution, ".data.long_tailed_test"), (Distribution, ".distribution"),
        (MethodSpec, ".method"), (SearchRecipe, ".recipe"), (RetrainRecipe, ".recipe"),
        (Pretrain, ".recipe.pretrain"), (Barlow, ".recipe.pretrain.barlow"),
    ):  # fmt: skip
        for field in fields(kind):
            assert any(name.startswith(f"{at}.{field.name}") for name in reached), (at, field.name)


@pytest.mark.parametrize("spec", [OWN_SEARCH, OWN_RETRAIN], ids=["search", "retrain"])
def test_every_single_change_of_a_spec_changes_its_id_but_that_of_a_label(spec: Trial) -> None:
    found = {name: changed.trial_id for name, changed in changes(spec)}
    assert found.pop(".data.label") == spec.trial_id
    found["unchanged"] = spec.trial_id
    twins = [pair for pair in combinations(found, 2) if found[pair[0]] == found[pair[1]]]
    assert twins == []


def test_label_places_resources_and_name_of_a_grid_change_no_id() -> None:
    content = "ab" * 32
    base: dict[str, Any] = {
        "data": {"path": "/here", "fingerprint": content},
        "search": {"methods": ["darts"], "distributions": ["balance"]},
        "retrain": {"genotypes": ["DARTS_V2"]},
    }
    other = {
        "name": "other",
        "data": {"path": "/there", "fingerprint": content, "label": "mine"},
        "search": base["search"] | {"resources": {"gpus": 0.5, "cpus": 3}},
        "retrain": base["retrain"] | {"resources": {"gpus": 2}},
    }
    first, second = (plan(Grid.from_dict(tree)) for tree in (base, other))
    assert [s.trial_id for s in first.searches] == [s.trial_id for s in second.searches]
    genotype = published("SNAS")
    assert [slot.resolve(genotype).trial_id for slot in first.retrains] == [
        slot.resolve(genotype).trial_id for slot in second.retrains
    ]
