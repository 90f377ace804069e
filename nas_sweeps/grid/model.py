"""``Grid``, a whole grid file checked and resolved, and how one is read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)
from pydantic_core import ErrorDetails

from nas_sweeps.data.files import find_files
from nas_sweeps.data.identity import fingerprint_of
from nas_sweeps.grid import axes, source, stopping
from nas_sweeps.grid.base import Section
from nas_sweeps.grid.exclude import Exclusion, Rule
from nas_sweeps.grid.genotypes import GivenGenotype
from nas_sweeps.grid.messages import (
    MAX_TOLD,
    GridError,
    Place,
    Problems,
    describe,
    dotted,
    problem,
    shown,
)
from nas_sweeps.grid.sections import (
    Cell,
    DataSection,
    RetrainSection,
    SearchSection,
)
from nas_sweeps.grid.settings import settings_at
from nas_sweeps.grid.source import Unreadable, plain
from nas_sweeps.grid.tune import TuneSection, checked_tune
from nas_sweeps.names import HEADLINE, Headline
from nas_sweeps.paths import user_path
from nas_sweeps.phases import Phase, in_order, phase_named
from nas_sweeps.trial import (
    Data,
    DataPaths,
    Distribution,
    Resources,
    absent_values,
)
from nas_sweeps.tuning import Stop

_NAME_BYTES = 200  # file systems take 255, and a file of the store adds to the name


class Grid(Section):
    """What to try: ``nas_sweeps.plan`` turns it into trials.

    ``name``, ``headline`` (the column that tables, the report and the live view show unless told
    otherwise), ``data.path``, ``data.label`` and the resources are in no identity: grids that
    differ in them have the same trials.
    """

    name: str  # also of the folder that results go to unless another is named
    data: DataSection
    search: SearchSection
    retrain: Annotated[RetrainSection, BeforeValidator(axes.section)] = Field(
        default=RetrainSection(), validate_default=True
    )
    tune: TuneSection | None = Field(default=None, validate_default=True)
    exclude: Annotated[
        tuple[Rule, ...], BeforeValidator(lambda v: () if v is None else axes.listed(v))
    ] = ()
    headline: Headline = HEADLINE

    @property
    def places(self) -> DataPaths:
        """Where this machine finds the images."""
        return DataPaths(path=self.data.path)

    @property
    def default_store(self) -> Path:
        """The folder of its results where nobody names another, below the current one."""
        return Path("runs") / self.name

    @property
    def phases(self) -> tuple[str, ...]:
        """Those of which it has a section, none before the one that it goes on from."""
        return tuple(name for name in in_order() if getattr(self, name, None) is not None)

    def resources(self, phase: str) -> Resources:
        """What a trial of this phase occupies."""
        asked: Resources = getattr(self, phase).resources
        return asked

    def stop(self, phase: str) -> Stop:
        """When a trial of this phase is given up: with a study, by what that maximises."""
        section = getattr(self, phase)
        said: Stop = getattr(section, "stop", None) or Stop()
        tune = self.tune if phase == "search" else getattr(section, "tune", None)
        return said if tune is None else replace(said, measure=tune.measure)

    def searches(self) -> list[Cell]:
        """Method, distribution and seed of every search that no rule excludes."""
        drops = Exclusion(self.exclude)
        return [
            (method, distribution, seed)
            for method, distribution, seed in self.search.cells()
            if not drops((method.name,), distribution, seed)
        ]

    def published(self) -> list[tuple[GivenGenotype, Distribution, int]]:
        """Genotype, distribution and retrain seed of every one that the grid names."""
        drops = Exclusion(self.exclude)
        return [
            (given, distribution, seed)
            for given, distribution, seed in self.retrain.published(self.search.distributions)
            if not drops(("published", given.name), distribution, seed)
        ]

    @field_validator("name")
    @classmethod
    def _can_name_a_folder(cls, name: str) -> str:
        if not name.strip(". ") or not name.isprintable() or set(name) & set("/\\"):
            raise problem(f"{shown(name)} cannot name a folder; leave out slashes and line breaks")
        if len(name.encode()) > _NAME_BYTES:
            raise problem(f"is longer than {_NAME_BYTES} bytes and is to name a folder; shorten it")
        return name

    @field_validator("retrain")
    @classmethod
    def _fits_search(cls, retrain: RetrainSection, info: ValidationInfo) -> RetrainSection:
        data, search = info.data.get("data"), info.data.get("search")
        found = Problems()
        if retrain.winners == "best_of_seeds" and data and data.follows_trial:
            advice = "retrain each, or give data a fixed subset_seed and split_seed"
            found.add(f"best_of_seeds compares searches on the same images; {advice}", "winners")
        if retrain.tune and retrain.tune.per == "cell" and data and data.follows_trial:
            advice = "tune per: genotype, or give data a fixed subset_seed and split_seed"
            found.add(f"cell compares searches on the same images; {advice}", "tune", "per")
        if search:
            last = search.recipe.epochs
            late = [e for e in retrain.winners if isinstance(e, int) and e > last]
            if late:
                found.add(
                    f"{late[0]} comes after the last epoch of the search, {last}; take earlier "
                    "ones, or raise search.recipe.epochs",
                    *("winners", "epochs"),
                )
            if not search.methods and not retrain.genotypes:
                found.add("there is nothing to try: list search.methods or some genotypes")
            searches, retrains = search.count, retrain.count(search)
            if searches + retrains > axes.MAX_TRIALS:
                found.add(
                    f"{searches:,} searches and {retrains:,} retrains ({len(retrain.seeds):,} "
                    f"seeds x {len(retrain.pretrain)} pretrain"
                    + (f" x {len(retrain.recipes)} recipes" if retrain.recipes else "")
                    + f" each); {axes.TOO_MANY}"
                )
        found.check()
        return retrain

    @field_validator("tune")
    @classmethod
    def _tunes_something(cls, tune: TuneSection | None, info: ValidationInfo) -> TuneSection | None:
        search = info.data.get("search")
        if search is None:
            return tune
        return checked_tune(tune, search.tuned, "search", search.seeds, search.stop)

    @field_validator("exclude")
    @classmethod
    def _rules_drop_something(
        cls, rules: tuple[Rule, ...], info: ValidationInfo
    ) -> tuple[Rule, ...]:
        search, retrain = info.data.get("search"), info.data.get("retrain")
        if not search or not retrain:
            return rules
        drops = Exclusion(rules)
        hits = [drops((method.name,), *rest) for method, *rest in search.cells()]
        published = retrain.published(search.distributions)
        hits += [drops(("published", given.name), *rest) for given, *rest in published]
        used = reduce(or_, hits, 0)
        found = Problems()
        for index in range(len(rules)):
            if not used >> index & 1:
                found.add("matches no cell of the grid; correct it or remove it", index)
        if all(hits):
            found.add("drops every cell of the grid; nothing is left to try")
        found.check()
        return rules

    def to_json(self) -> str:
        """The resolved grid, to be read by ``from_json`` on any machine.

        The data's fingerprint is in it, so planning needs no images; ``data.path`` is a hint.
        What was added to the data section later is in it only where it is set.
        """
        sections = (*_added_phases(), "tune")
        absent: dict[str, Any] = {
            name: True for name in sections if getattr(self, name, None) is None
        }
        absent |= {"headline": True} if self.headline == HEADLINE else {}
        later, usual = absent_values(Data), DataSection.model_fields
        absent["data"] = {name for name in later if getattr(self.data, name) == usual[name].default}
        unset = [name for name in ("search", "retrain") if getattr(self, name).stop == Stop()]
        absent |= {name: {"stop"} for name in unset}
        tree = self.model_dump(mode="json", exclude=absent)
        return json.dumps(tree, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Grid:
        """Read what ``to_json`` wrote. Raises ``GridError`` on anything else."""
        try:
            tree = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise GridError(f"grid: not JSON: {error}") from None
        return cls.from_dict(tree)

    @classmethod
    def from_dict(
        cls, tree: Mapping[str, Any], source: str = "grid", base: Path | None = None
    ) -> Grid:
        """A grid from the plain dicts and lists of a grid file.

        Args:
            tree: the sections.
            source: what messages call it, and its name unless it has one.
            base: the folder that ``data.path`` and files of genotypes are relative to; None: the
                current one.

        Raises:
            GridError: with every mistake.
        """
        if not isinstance(tree, Mapping):
            raise GridError(f"{source}: holds sections: data, search, retrain, tune, exclude")
        return _checked(tree, source, Path(source).stem, base or Path.cwd())


def as_grid(grid: Grid | str | Path) -> Grid:
    """The grid itself, or the one in the file of this path. Raises ``GridError`` as its reading."""
    return grid if isinstance(grid, Grid) else load_grid(grid)


def load_grid(path: str | Path, overrides: Sequence[str] = ()) -> Grid:
    """Read and check a grid file, with ``section.setting=value`` overrides on top.

    Raises:
        GridError: the file cannot be read, or holds mistakes: all of them, a line each.
    """
    try:
        file = user_path(path)
        tree, wrong = source.read(file)
    except ValueError as error:
        raise GridError(f"{path}: {error}") from None
    places, more = source.override(tree, overrides)
    base, wrong = file.absolute().parent, [*wrong, *more]
    grid = _checked(tree, str(path), file.stem, base, places, wrong)
    for remark in (*grid.search.remarks(), *stopping.remarks(grid.search, grid.retrain)):
        warnings.warn(f"{path}: {remark}", stacklevel=2)
    return grid


def _checked(
    tree: Mapping[str, Any],
    source: str,
    name: str,
    base: Path,
    overridden: Sequence[Place] = (),
    wrong: Sequence[str] = (),
) -> Grid:
    found: list[ErrorDetails] = []
    try:
        sections = plain({"name": name} | dict(tree))
    except Unreadable as error:
        raise GridError(f"{source}: {error}") from None
    if sections["name"] is None:
        sections["name"] = name
    text = json.dumps(sections)
    try:
        # JSON, because there strict types still take an object for a dataclass
        grid = _model(_added_phases()).model_validate_json(
            text, strict=True, context={"base": base}
        )
    except ValidationError as error:
        found = [details for details in error.errors() if not _echo(details)]
    if wrong or found:
        lines = [*wrong[:MAX_TOLD], *(_line(details, overridden) for details in found[:MAX_TOLD])]
        more = len(wrong) + len(found) - MAX_TOLD
        told = lines if more <= 0 else [*lines[:MAX_TOLD], f"and {more:,} more mistakes"]
        raise GridError(*(f"{source}: {line}" for line in told))
    return _identified(grid, source)


def _identified(grid: Grid, source: str) -> Grid:
    """The grid with the fingerprint of its images, read where no one gave it."""
    if grid.data.path is None or grid.data.fingerprint is not None:
        return grid
    try:
        files = find_files(grid.data.path, grid.data.spec(0))
        content = fingerprint_of(files, grid.places)
    except (ValueError, OSError) as error:
        raise GridError(f"{source}: data.path: {error}") from None
    remark = files.remark()
    if remark is not None:
        warnings.warn(f"{source}: {remark}", stacklevel=2)
    data = grid.data.model_copy(update={"fingerprint": content})
    return grid.model_copy(update={"data": data})


# Phases that other packages add


def _added_phases() -> tuple[str, ...]:
    """Those whose sections ``Grid`` does not have itself.

    Raises:
        ValueError: one has the name of something else in a grid.
    """
    added = tuple(name for name in in_order() if name not in ("search", "retrain"))
    for name in added:
        if name in Grid.model_fields or hasattr(Grid, name):
            raise ValueError(f"phase '{name}': a grid has something else of that name; rename it")
    return added


@cache
def _model(added: tuple[str, ...]) -> type[Grid]:
    """``Grid`` with a section, or none, of each of these phases."""
    fields_of: dict[str, Any] = {name: (_optional(phase_named(name)), None) for name in added}
    return create_model("Grid", __base__=Grid, **fields_of) if added else Grid


def _optional(phase: Phase) -> Any:
    def has_parents(section: Any, info: ValidationInfo) -> Any:
        after = phase.after
        if section is not None and after is not None and info.data.get(after, section) is None:
            raise problem(f"goes on from {after}, of which the grid has no section; add it")
        return section

    kind: Any = phase.section
    return Annotated[kind | None, BeforeValidator(axes.section), AfterValidator(has_parents)]


def _echo(details: ErrorDetails) -> bool:
    """Pydantic calls a list empty when each of its items is wrong."""
    return details["type"] == "too_short" and bool(details["input"])


def _line(details: ErrorDetails, overridden: Sequence[Place]) -> str:
    place = details["loc"]
    if (
        place[:3] == ("retrain", "barlow", "barlow") and len(place) > 3
    ):  # flat in the file, nested in the spec
        place = place[:2] + place[3:]
    text = describe(details, lambda place: settings_at(place, _model(_added_phases())))
    for setting in overridden:
        made_it = text.startswith("unknown setting") and setting[: len(place)] == place
        if made_it or place[: len(setting)] == setting:
            return f"--set {dotted(setting if made_it else place)}: {text}"
    return f"{dotted(place)}: {text}" if place else text
