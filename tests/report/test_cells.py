"""Cells: the layout's promises, and drawing by name."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise

import pytest

from nas_sweeps.choices import DRAW_FORMATS
from nas_sweeps.report.cells import as_dot, as_text, lay_out
from nas_sweeps.report.draw import draw, resolve
from nas_sweeps.space.genotype import EDGES, OPERATIONS, Edge, Genotype, alive_nodes
from nas_sweeps.space.published import PUBLISHED
from tests.report.lab import HOSTILE, Lab

FULL: tuple[Edge, ...] = tuple((OPERATIONS[1 + (i + j) % 7], j, i) for j, i in EDGES)
TWICE: tuple[Edge, ...] = (("skip_connect", 0, 2), ("sep_conv_3x3", 0, 2))
CELLS = {
    **{f"{name}-normal": genotype.normal for name, genotype in PUBLISHED.items()},
    **{f"{name}-reduce": genotype.reduce for name, genotype in PUBLISHED.items()},
    "full": FULL,
    "twice": TWICE,
}
every_cell = pytest.mark.parametrize("edges", CELLS.values(), ids=CELLS)


@every_cell
def test_every_edge_is_a_path_with_its_operation(edges: tuple[Edge, ...]) -> None:
    layout = lay_out(edges)
    drawn = []
    for path in layout.paths:
        places = [layout.places[key] for key in path]
        assert all(a.x < b.x for a, b in pairwise(places)), "left to right"
        operations = [p.text for p in places if p.kind == "operation"]
        if places[-1].kind == "output":
            assert operations == []
        else:
            drawn.append((*operations, int(path[0][1:]), int(path[-1][1:])))
    assert sorted(drawn) == sorted(edges)
    to_output = [path[0] for path in layout.paths if path[-1] == "out"]
    assert to_output == [f"n{node}" for node in alive_nodes(edges)]


@every_cell
def test_nothing_lies_on_something_else(edges: tuple[Edge, ...]) -> None:
    columns: dict[float, list[float]] = {}
    for place in lay_out(edges).places.values():
        columns.setdefault(place.x, []).append(place.y)
    for heights in columns.values():
        assert all(b - a > 1 - 1e-9 for a, b in pairwise(sorted(heights)))


def test_text_has_a_line_per_edge() -> None:
    text = as_text([("DARTS_V2", PUBLISHED["DARTS_V2"])])
    assert text.isascii()
    assert len(re.findall(r"-->", text)) == 16
    assert "    c[k-2] ----sep_conv_3x3----> 2\n" in text
    assert text.count("2 3 4 5 ==concatenated==> c[k]") == 2


def test_dot_quotes_names() -> None:
    genotype = Genotype(TWICE, FULL)
    dot = as_dot([('a "name"\\\nhere', genotype)])
    assert r'label="a \"name\"\\\nhere: normal cell"' in dot
    assert dot.count(" -> ") == len(TWICE) + 1 + len(FULL) + 4
    assert dot.count("{") == dot.count("}") == 3


@pytest.mark.parametrize("form", DRAW_FORMATS)
def test_a_published_genotype_is_drawn_alike_twice(form: str) -> None:
    first, second = (draw("FairDARTS_c", form) for _ in range(2))  # type: ignore[arg-type]
    assert first == second
    start = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG", "dot": b"digraph"}
    assert first.startswith(start.get(form, b"FairDARTS_c"))


def test_trials_and_genotypes_are_found_in_a_store(sweep: Lab) -> None:
    wanted = PUBLISHED["PC_DARTS"]
    trial = next(t for t in sweep.store.states() if wanted in _genotypes(sweep, t))
    for name in (trial, trial[:12], wanted.genotype_id):
        ((_, genotype),) = resolve(name, sweep.store.root)
        assert genotype == wanted
    assert len(resolve(str(sweep.store.root))) == 7
    assert HOSTILE.split("\n")[0] in draw(str(sweep.store.root)).decode()


def _genotypes(lab: Lab, trial_id: str) -> list[Genotype]:
    result = lab.store.result(trial_id)
    return [Genotype(*result.genotype)] if result and result.genotype else []


@pytest.mark.parametrize("target", ["DARTS_V9", "", "r-0000"])
def test_unknown_names_are_refused_with_the_choices(target: str, sweep: Lab) -> None:
    with pytest.raises(ValueError, match="DARTS_V2"):
        draw(target, "text", sweep.store.root)
    with pytest.raises(ValueError, match="name its store"):
        draw(target)


def test_an_ambiguous_beginning_names_what_it_could_be(sweep: Lab) -> None:
    with pytest.raises(ValueError, match="it could be r-"):
        draw("r-", "text", sweep.store.root)


def test_a_trial_without_genotype_and_a_store_without_winner_say_so(lab: Lab) -> None:
    running = lab.search(state="running")
    with pytest.raises(ValueError, match="has no genotype"):
        draw(running.trial_id, "text", lab.store.root)
    with pytest.raises(ValueError, match="no search is done"):
        draw(str(lab.store.root))


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(ValueError, match="choose from text, dot, svg, pdf, png"):
        draw("DARTS_V2", "gif")  # type: ignore[arg-type]


def test_text_and_dot_load_nothing_heavy() -> None:
    code = (
        "import sys, nas_sweeps.cli\n"
        "from nas_sweeps.report.draw import draw\n"
        "draw('DARTS_V2', 'text'), draw('DARTS_V2', 'dot')\n"
        "assert not {'matplotlib', 'pandas', 'torch', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
