"""``draw``: cells by whatever a person has at hand, as a picture, as DOT, or as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas_sweeps.choices import DRAW_FORMATS, DrawFormat
from nas_sweeps.hints import did_you_mean
from nas_sweeps.report.cells import as_dot, as_text
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.space.published import PUBLISHED
from nas_sweeps.store import Store

SHOWN = 5  # of the names that something may be short for
Named = tuple[str, Genotype]


def draw(target: str, format: DrawFormat = "text", store: str | Path | None = None) -> bytes:
    """The normal and the reduction cell of what ``target`` names.

    Args:
        target: a published genotype (``DARTS_V2``), a trial or a genotype id in ``store`` (or
            the beginning of one), or the folder of a store, for the winner of each method and
            distribution.
        format: ``text`` is for a terminal, ``dot`` for Graphviz.
        store: the folder that holds the trial or genotype.

    Returns:
        The file's bytes; of ``text`` and ``dot``, UTF-8.

    Raises:
        ValueError: nothing or more than one thing goes by that name, the trial has no genotype,
            or there is no such format.

    >>> print(draw("DARTS_V2").decode().splitlines()[3])
        c[k-2] ----sep_conv_3x3----> 2
    """
    if format not in DRAW_FORMATS:
        raise ValueError(f"format '{format}': choose from {', '.join(DRAW_FORMATS)}")
    return render(resolve(target, store), format)


def render(named: Sequence[Named], format: DrawFormat) -> bytes:
    """Genotypes one below the other. ``text`` and ``dot`` load no matplotlib."""
    if format == "text":
        return as_text(named).encode()
    if format == "dot":
        return as_dot(named).encode()
    from nas_sweeps.report.cell_figure import cells_figure
    from nas_sweeps.report.style import to_bytes

    return to_bytes(cells_figure(named), format)


def resolve(target: str, store: str | Path | None = None) -> list[Named]:
    """What ``target`` names, with a title for each genotype. Raises what ``draw`` raises."""
    if store is not None:
        Store(store).require()
    if target in PUBLISHED:
        return [(target, PUBLISHED[target])]
    if store is not None:
        return [_in_store(target, store)]
    if target.strip() and Store(target).exists():
        return _winners(target)
    raise ValueError(
        f"'{target}' is neither a published genotype ({', '.join(PUBLISHED)}) nor the folder of "
        f"a store; for a trial or genotype id, name its store too{did_you_mean(target, PUBLISHED)}"
    )


def _winners(store: str) -> list[Named]:
    from nas_sweeps.report.winners import named_winners, winner_data
    from nas_sweeps.tables import load

    named = named_winners(winner_data(load(store)))
    if not named:
        raise ValueError(f"store '{store}': no search is done yet, so there is no cell to draw")
    return named


def _in_store(target: str, store: str | Path) -> Named:
    from nas_sweeps.report.winners import from_rows
    from nas_sweeps.tables import load

    frames = load(store)
    owner = frames.trials.set_index("trial_id")["genotype_id"]
    genotypes = frames.genotypes.groupby("genotype_id").groups
    known = [*owner.index, *genotypes]
    found = [target] if target in known else [key for key in known if key.startswith(target)]
    if not target or len(found) != 1:
        more = ", …" if len(found) > SHOWN else ""
        hint = f"; it could be {', '.join(found[:SHOWN])}{more}" if target and found else ""
        raise ValueError(
            f"'{target}': no one trial or genotype of store '{store}', and no published "
            f"genotype ({', '.join(PUBLISHED)}){hint}"
        )
    name = found[0]
    genotype_id = owner.get(name, name)
    if genotype_id not in genotypes:
        raise ValueError(
            f"trial {name} has no genotype (yet): a search has one once it is done; see "
            f"'nas-sweeps status {store}'"
        )
    return name, from_rows(frames.genotypes.loc[genotypes[genotype_id]])
