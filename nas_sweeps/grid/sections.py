"""The sections of a grid file as pydantic models.

A model holds resolved values: methods with every knob, one ``Distribution`` a cell, recipes
with their presets applied. Dumped, it is written in the grid language again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Le, MinLen
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from nas_sweeps import methods
from nas_sweeps.data.datasets import DATASETS
from nas_sweeps.data.files import find_files
from nas_sweeps.grid import axes, data_forms, stopping
from nas_sweeps.grid.base import Section, Seed, Seeds
from nas_sweeps.grid.choice import written
from nas_sweeps.grid.genotypes import GivenGenotype, check_names, given_genotype
from nas_sweeps.grid.messages import Problems, prepared, problem
from nas_sweeps.grid.ranges import tunable
from nas_sweeps.grid.tune import RetrainTuneSection, checked_tune
from nas_sweeps.paths import user_path
from nas_sweeps.recipes import complaints
from nas_sweeps.trial import (
    Data,
    Distribution,
    GroupBy,
    Groups,
    Labels,
    MethodSpec,
    Mu,
    Positive,
    Pretrain,
    Resources,
    RetrainRecipe,
    SearchRecipe,
)
from nas_sweeps.tuning import Stop, ranges_of

Cell = tuple[MethodSpec, Distribution, int]  # of the search: method, distribution, seed
SeedOrTrial = Annotated[int | Literal["trial"], PlainValidator(axes.seed_or_trial)]


class PhaseSection(Section):
    """The section of a phase: what each of its trials occupies while it runs, and its settings."""

    resources: Annotated[Resources, prepared(axes.resources)] = Resources()


def _expanded(path: str) -> Path:
    try:
        return user_path(path)
    except ValueError as error:
        raise problem(str(error)) from None


class DataSection(Section):
    """``data``: a ``dataset`` with a name, or a ``path`` with a fingerprint of its content."""

    dataset: Annotated[str, AfterValidator(axes.dataset)] | None = None
    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    labels: Annotated[
        Labels | None, PlainValidator(data_forms.labels), PlainSerializer(data_forms.short_labels)
    ] = None
    test_split: Literal["test", "validation"] = "test"
    path: str | None = Field(default=None, validate_default=True)
    label: str | None = None
    image_size: Annotated[int, Ge(8), Le(4096)] | None = None  # beyond, one image is 50 MB
    n_max: Positive | None = None
    test_n_max: Positive | None = None
    subset_seed: SeedOrTrial = 0
    split_seed: SeedOrTrial = 0
    class_order_seed: Seed | None = None
    long_tailed_test: Annotated[
        Distribution | None,
        PlainValidator(axes.long_tailed_test),
        PlainSerializer(lambda cell: axes.short_distribution(cell) if cell else "match"),
    ] = None
    group: Annotated[
        GroupBy | None, PlainValidator(data_forms.group), PlainSerializer(data_forms.short_group)
    ] = None
    resize: Literal["crop", "stretch", "pad"] = "crop"
    short_side: Annotated[int, Ge(8), Le(4096)] | None = None
    groups: Annotated[
        Groups | None, PlainValidator(data_forms.groups), PlainSerializer(data_forms.short_groups)
    ] = None

    @field_validator("path")
    @classmethod
    def _exists(cls, path: str | None, info: ValidationInfo) -> str | None:
        if not {"dataset", "fingerprint", "labels", "test_split"} <= set(info.data):
            return path
        custom = path is not None or info.data["fingerprint"] is not None
        if custom == (info.data["dataset"] is not None):
            choices = ", ".join(DATASETS.names())
            raise problem(f"give either data.dataset ({choices}) or data.path, not both or neither")
        if path is None:
            return None
        assert info.context is not None
        path = os.path.abspath(Path(info.context["base"], _expanded(path)))
        if info.data["fingerprint"] is None:
            try:
                find_files(
                    path,
                    Data(
                        dataset="custom",
                        label="",
                        labels=info.data["labels"],
                        test_split=info.data["test_split"],
                    ),
                )
            except OSError as error:
                raise problem(f"{path} cannot be read: {error.strerror}") from None
        return path

    @model_validator(mode="after")
    def _fits_its_source(self) -> Self:
        found = Problems()
        if self.dataset is not None:
            for name in ("labels", "test_split"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    found.add("is of images at a data.path, and this data set has a name", name)
            if self.group is not None and self.group.column is not None:
                found.add("names a column, and a data set with a name has none", "group")
        if self.image_size is None and (self.resize != "crop" or self.short_side):
            found.add("resize and short_side need image_size, the size that is wanted")
        if self.short_side and (self.resize != "crop" or self.short_side < (self.image_size or 0)):
            found.add("must be at least image_size, and goes with resize: crop", "short_side")
        found.check()
        return self

    @property
    def follows_trial(self) -> bool:
        """Whether a trial's seed decides which images it sees."""
        return "trial" in (self.subset_seed, self.split_seed)

    def specs(self) -> Callable[[int], Data]:
        """``spec`` for many trials: equal data are one object, of which a large plan holds one."""
        made = cache(self.spec)
        return made if self.follows_trial else lambda seed: made(0)

    def spec(self, seed: int) -> Data:
        """The data of a trial with this seed."""
        subset = seed if self.subset_seed == "trial" else self.subset_seed
        split = seed if self.split_seed == "trial" else self.split_seed
        return Data(
            dataset=self.dataset or "custom",
            label=self.label or self.dataset or Path(self.path or "custom").name,
            fingerprint=self.fingerprint,
            image_size=self.image_size,
            n_max=self.n_max,
            test_n_max=self.test_n_max,
            subset_seed=subset,
            split_seed=split,
            class_order_seed=self.class_order_seed,
            long_tailed_test=self.long_tailed_test,
            groups=self.groups,
            labels=self.labels,
            test_split=self.test_split,
            group=self.group,
            resize=self.resize,
            short_side=self.short_side,
        )


class SearchSection(PhaseSection):
    """``search``: methods x distributions x seeds, all with one recipe."""

    methods: Annotated[
        tuple[Annotated[MethodSpec, PlainSerializer(axes.short_method)], ...],
        BeforeValidator(axes.method_specs),
    ]
    mu: Annotated[tuple[Mu, ...], BeforeValidator(axes.listed)] = ()
    distributions: Annotated[
        tuple[Annotated[Distribution, PlainSerializer(axes.short_distribution)], ...],
        MinLen(1),
        BeforeValidator(axes.distributions),
    ]
    seeds: Seeds = (0,)
    recipe: Annotated[SearchRecipe, tunable(axes.recipe("search")), PlainSerializer(written)] = (
        SearchRecipe()
    )
    stop: Annotated[Stop, prepared(stopping.stop), PlainSerializer(stopping.short)] = Stop()

    @model_validator(mode="after")
    def _searchable(self) -> Self:
        found = Problems()
        for index, spec in enumerate(self.methods):
            try:
                methods.build(spec).check(self.recipe)
            except ValueError as error:
                found.add(f"{spec.name} {error}", "methods", index)
        stopping.check_search(self.stop, self.recipe, found)
        found.check()
        return self

    @model_validator(mode="after")
    def _limited(self) -> Self:
        if self.count > axes.MAX_TRIALS:
            raise problem(
                f"{len(self.methods):,} methods x {len(self.distributions):,} distributions x "
                f"{len(set(self.seeds)):,} seeds make {self.count:,} searches; {axes.TOO_MANY}"
            )
        return self

    def remarks(self) -> Iterator[str]:
        """What a person should know of settings that some of its methods do not read."""
        unset = SearchRecipe()
        for name in dict.fromkeys(spec.name for spec in self.methods):
            kinds = [methods.build(spec) for spec in self.methods if spec.name == name]
            read = {setting for method in kinds for setting in method.reads}
            of_labels = ("loss", "sampler", "mixup", "cutmix")
            unread = [
                f"search.recipe.{setting}"
                for setting in of_labels
                if setting not in read and getattr(self.recipe, setting) != getattr(unset, setting)
            ]
            if unread:
                told = ", ".join(unread)
                yield f"{told}: not read in searches by {name}, where it changes nothing"

    @property
    def tuned(self) -> bool:
        """Whether anything in it has a range."""
        return bool(ranges_of(self.recipe)) or any(map(ranges_of, self.methods))

    @property
    def count(self) -> int:
        """How many ``cells`` there are, without making them."""
        return len(self.methods) * len(self.distributions) * len(set(self.seeds))

    def cells(self) -> Iterator[Cell]:
        """Every search, in the order of the file, before ``exclude``."""
        yield from product(self.methods, self.distributions, dict.fromkeys(self.seeds))


RetrainSettings = Annotated[
    RetrainRecipe,
    tunable(axes.recipe("retrain")),
    BeforeValidator(axes.by_preset),
    PlainSerializer(lambda r: {k: v for k, v in written(r).items() if k != "pretrain"}),
]


class RetrainSection(PhaseSection):
    """``retrain``: which genotypes are trained from scratch, and how.

    Either one ``recipe``, or ``recipes`` by name: then every genotype is retrained under each.
    ``winners`` as epochs stands for the genotypes that every search had after these.
    """

    winners: Annotated[
        str | tuple[int, ...], PlainValidator(axes.winners), PlainSerializer(axes.short_winners)
    ] = "each"
    seeds: Seeds = (0,)
    recipe: RetrainSettings = RetrainRecipe()
    recipes: Annotated[dict[str, RetrainSettings], prepared(axes.recipes)] = Field(default={})
    pretrain: Annotated[
        tuple[Literal["by_method", "none", "barlow"], ...],
        MinLen(1),
        BeforeValidator(axes.listed),
    ] = ("by_method",)
    barlow: Annotated[Pretrain, prepared(axes.pretrain), PlainSerializer(axes.short_pretrain)] = (
        Pretrain()
    )
    stop: Annotated[Stop, prepared(stopping.stop), PlainSerializer(stopping.short)] = Stop()
    genotypes: Annotated[
        tuple[
            Annotated[
                GivenGenotype,
                PlainValidator(given_genotype),
                PlainSerializer(GivenGenotype.to_json),
            ],
            ...,
        ],
        BeforeValidator(axes.listed),
    ] = ()

    tune: RetrainTuneSection | None = Field(default=None, validate_default=True)

    @property
    def named_recipes(self) -> dict[str, RetrainRecipe]:
        """The recipes by name; the name of the one ``recipe`` is empty."""
        return self.recipes or {"": self.recipe}

    @property
    def network(self) -> tuple[int, int]:
        """Channels and layers of what it trains, under the first recipe."""
        recipe = next(iter(self.named_recipes.values()))
        return recipe.channels, recipe.layers

    def epochs_of(self, method: MethodSpec) -> tuple[int | None, ...]:
        """After which epochs the genotypes of a search by this method are taken; None: its end.

        A method that trains nothing has one genotype.
        """
        if isinstance(self.winners, str) or not methods.build(method).trains:
            return (None,)
        return self.winners

    def count(self, search: SearchSection) -> int:
        """How many retrains the grid leads to before ``exclude``, without making them."""
        found = search.count // max(1, len(search.methods))
        found *= sum(len(self.epochs_of(method)) for method in search.methods)
        if self.winners == "best_of_seeds":
            found //= len(set(search.seeds))
        published = len(set(self.genotypes)) * len(search.distributions)
        each = len(set(self.seeds)) * len(set(self.pretrain)) * len(self.named_recipes)
        return ((0 if self.winners == "none" else found) + published) * each

    def published(
        self, distributions: tuple[Distribution, ...]
    ) -> Iterator[tuple[GivenGenotype, Distribution, int]]:
        """The genotypes of the grid on every distribution with every retrain seed."""
        yield from product(dict.fromkeys(self.genotypes), distributions, dict.fromkeys(self.seeds))

    @model_validator(mode="after")
    def _one_way_to_say_recipes(self) -> Self:
        if self.recipes and "recipe" in self.model_fields_set:
            raise problem(
                "give either retrain.recipe or retrain.recipes, not both: move the settings of "
                "recipe into recipes, under a name"
            )
        return self

    @model_serializer(mode="wrap")
    def _said_once(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said: dict[str, Any] = handler(self)
        del said["recipe" if self.recipes else "recipes"]
        if self.tune is None:
            del said["tune"]
        return said

    @field_validator("recipes")
    @classmethod
    def _differ(cls, recipes: dict[str, RetrainRecipe]) -> dict[str, RetrainRecipe]:
        found, names = Problems(), dict[RetrainRecipe, str]()
        for name, recipe in recipes.items():
            if names.setdefault(recipe, name) != name:
                found.add(f"has the same settings as '{names[recipe]}'; remove one", name)
        found.check()
        return recipes

    @model_validator(mode="after")
    def _pretrainable(self) -> Self:
        """Each recipe with the pre-training that its trials may have."""
        found = Problems()
        stopping.check_retrain(self.stop, self.named_recipes, found)
        for name, recipe in self.named_recipes.items() if self.pretrain != ("none",) else ():
            place = ("recipes", name) if name else ("recipe",)
            alone = dict(complaints(recipe))
            for setting, wrong in complaints(replace(recipe, pretrain=self.barlow)):
                if setting not in alone:
                    found.add(f"{setting} {wrong}", *place, *setting.split("."))
        found.check()
        return self

    @field_validator("tune")
    @classmethod
    def _tunes_something(
        cls, tune: RetrainTuneSection | None, info: ValidationInfo
    ) -> RetrainTuneSection | None:
        if not {"recipe", "recipes", "seeds", "stop"} <= set(info.data):
            return tune
        recipes = [info.data["recipe"], *info.data["recipes"].values()]
        ranges = any(map(ranges_of, recipes))
        return checked_tune(tune, ranges, "retrain", info.data["seeds"], info.data["stop"])

    @field_validator("pretrain")
    @classmethod
    def _by_method_alone(cls, choices: tuple[str, ...]) -> tuple[str, ...]:
        if "by_method" in choices and len(choices) > 1:
            raise problem("by_method stands alone; for both losses write [none, barlow]")
        return choices

    @field_validator("genotypes")
    @classmethod
    def _one_genotype_a_name(cls, given: tuple[GivenGenotype, ...]) -> tuple[GivenGenotype, ...]:
        check_names(given)
        return given
