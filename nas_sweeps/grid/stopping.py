"""``stop``, of the sections ``search`` and ``retrain``: when a trial is given up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nas_sweeps.grid.messages import Problems, shown
from nas_sweeps.trial import RetrainRecipe, SearchRecipe
from nas_sweeps.tuning import Stop, ranges_of

if TYPE_CHECKING:
    from nas_sweeps.grid.sections import RetrainSection, SearchSection


def stop(value: Any, found: Problems) -> Any:
    """A rule's name stands for the rule with its defaults; nothing, for no rule."""
    if isinstance(value, str):
        return {"rule": value}
    if value is not None and not isinstance(value, dict):
        found.add(f"{shown(value)} is no rule; write {{rule: median, after_epochs: 5}}")
        return {}
    parts = dict(value or {})
    if "collapse" in parts and parts["collapse"] is None:
        del parts["collapse"]
    return parts


def short(value: Stop) -> dict[str, Any]:
    """As a grid file says it: what is not set is left out."""
    said = {name: each for name, each in asdict(value).items() if each is not None}
    said["collapse"] = {k: v for k, v in said["collapse"].items() if v is not None}
    return said


def check_search(stop: Stop, recipe: SearchRecipe, found: Problems) -> None:
    """What does not go together."""
    collapse = stop.collapse
    if stop.rule != "none" or (collapse.skip_connections, collapse.alpha_entropy) != (None, None):
        _check_epochs(stop, "search.recipe", recipe, found)


def check_retrain(stop: Stop, recipes: Mapping[str, RetrainRecipe], found: Problems) -> None:
    """What does not go together; ``recipes`` are by name, and the name of a single one is empty."""
    for name in ("skip_connections", "alpha_entropy"):
        if getattr(stop.collapse, name) is not None:
            found.add("is of searches: a retrain has its cells", "stop", "collapse", name)
    for name, recipe in recipes.items() if stop.rule != "none" else ():
        where = f"retrain.recipes.{name}" if name else "retrain.recipe"
        if recipe.images != "search_half":
            found.add(
                "compares by accuracy on V, and a retrain on all training images measures "
                "nothing but the test set, on which nothing may be decided: write "
                f"{where}.images: search_half, which holds V out, or leave the rule out",
                *("stop", "rule"),
            )
        else:
            _check_epochs(stop, where, recipe, found)


def remarks(search: SearchSection, retrain: RetrainSection) -> Iterator[str]:
    """What a person should know of what the rules compare."""
    for name, asked in (("search", search.stop), ("retrain", retrain.stop)):
        if not asked and asked != Stop():
            yield f"{name}.stop names neither a rule nor a collapse, and so stops nothing"
    plain = not ranges_of(search.recipe) and not all(map(ranges_of, search.methods))
    if search.stop.rule != "none" and plain and search.methods:
        if len(set(search.seeds)) == 1:
            yield "search.stop: a cell has one search, and so nothing to compare it with"
        elif retrain.winners not in ("best_of_seeds", "none"):
            yield (
                "search.stop compares the seeds of a cell: the better ones are left, so means over "
                "them are too high; rules are for studies and for winners: best_of_seeds"
            )
    if retrain.stop.rule != "none":
        yield "retrain.stop: means are of the retrains that are left, and so too high"


def _check_epochs(
    stop: Stop, where: str, recipe: SearchRecipe | RetrainRecipe, found: Problems
) -> None:
    last, every = recipe.epochs, recipe.test_every
    if stop.after_epochs >= last:
        found.add(
            f"no trial is left to stop after {stop.after_epochs} of {last} epochs "
            f"({where}.epochs); write a smaller number",
            *("stop", "after_epochs"),
        )
    elif stop.rule != "none" and not any(
        epoch % every == 0 for epoch in range(stop.after_epochs, last)
    ):
        found.add(
            f"compares what is measured after epoch {stop.after_epochs} and before the last, and "
            f"{where}.test_every: {every} measures nothing there; lower it",
            *("stop", "rule"),
        )
