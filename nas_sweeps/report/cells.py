"""Cells as pictures without coordinates: a layered layout, DOT, and text for a terminal.

The layout is the one of Sugiyama, Tagawa and Toda (1981): nodes get layers by their longest path
from the inputs, long edges get a point in every layer they pass, layers are reordered until few
edges cross, and positions are pulled towards their neighbours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from nas_sweeps.space.genotype import CELLS, Edge, Genotype, alive_nodes

INPUTS = ("c[k-2]", "c[k-1]")
OUTPUT = "c[k]"
TITLES = {"normal": "normal cell", "reduce": "reduction cell"}
_SWEEPS = 12  # of reordering and of straightening: both settle within a few on cells this small


Kind = Literal["input", "node", "output", "operation", "point"]


@dataclass(frozen=True, slots=True)
class Place:
    """A node, an operation, or a point where a long edge passes. ``x`` counts layers."""

    kind: Kind
    text: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class CellLayout:
    """Places by key, and paths of keys: each edge from its source to the node it feeds."""

    places: dict[str, Place]
    paths: tuple[tuple[str, ...], ...]

    @property
    def width(self) -> float:
        return max(place.x for place in self.places.values())

    @property
    def height(self) -> float:
        ys = [place.y for place in self.places.values()]
        return max(ys) - min(ys)


def node_name(node: int) -> str:
    """Inputs by what they are, intermediate nodes by their number in the genotype."""
    return INPUTS[node] if node < len(INPUTS) else str(node)


def lay_out(edges: Iterable[Edge]) -> CellLayout:
    """Where to draw everything in a cell: left to right, one unit between neighbours."""
    edges = tuple(edges)
    layers = _layers(edges)
    texts: dict[str, tuple[Kind, str]] = {}
    for node in layers:
        texts[f"n{node}"] = ("input" if node < 2 else "node", node_name(node))
    texts["out"] = ("output", OUTPUT)
    column = {f"n{node}": 2 * layer for node, layer in layers.items()}
    column["out"] = 2 * (1 + max(layers.values()))
    paths = [_path(column, texts, f"n{j}", f"n{i}", operation) for operation, j, i in edges]
    paths += [_path(column, texts, f"n{node}", "out") for node in alive_nodes(edges)]
    ys = _positions(column, paths)
    places = {key: Place(*texts[key], x / 2, ys[key]) for key, x in column.items()}
    return CellLayout(places, tuple(paths))


def _layers(edges: Sequence[Edge]) -> dict[int, int]:
    """Longest path from the inputs. Sources have smaller numbers than the nodes they feed."""
    layers = {0: 0, 1: 0}
    for node in alive_nodes(edges):
        layers[node] = 1 + max(layers[j] for _, j, i in edges if i == node)
    return layers


def _path(
    column: dict[str, int],
    texts: dict[str, tuple[Kind, str]],
    source: str,
    target: str,
    operation: str = "",
) -> tuple[str, ...]:
    """Keys from source to target, a new one per layer between; the operation's is the last."""
    between = []
    for x in range(column[source] + 1, column[target]):
        key = f"{source}>{target}:{operation}@{x}"
        is_operation = operation and x == column[target] - 1
        column[key], texts[key] = x, ("operation", operation) if is_operation else ("point", "")
        between.append(key)
    return (source, *between, target)


def _positions(column: dict[str, int], paths: Sequence[tuple[str, ...]]) -> dict[str, float]:
    """A height for every key: first an order within each layer, then distances."""
    order: dict[int, list[str]] = defaultdict(list)
    for key, x in column.items():
        order[x].append(key)
    near: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        for a, b in pairwise(path):
            near[a].append(b)
            near[b].append(a)
    ys = {key: float(i) for keys in order.values() for i, key in enumerate(keys)}
    best = (_crossings(column, paths, ys), dict(ys))
    for sweep in range(_SWEEPS):
        for x in sorted(order, reverse=bool(sweep % 2)):
            keys = sorted(order[x], key=lambda key: _mean(near[key], ys, ys[key]))  # stable
            ys.update((key, float(i)) for i, key in enumerate(keys))
            order[x] = keys
        best = min(best, (_crossings(column, paths, ys), dict(ys)), key=lambda found: found[0])
    for x, keys in order.items():
        order[x] = sorted(keys, key=best[1].__getitem__)
    return _straightened(order, near, best[1])


def _crossings(
    column: dict[str, int], paths: Sequence[tuple[str, ...]], ys: dict[str, float]
) -> int:
    """Pairs of steps that cross: those that change sides between their two ends."""
    steps = [step for path in paths for step in pairwise(path)]
    found = 0
    for i, (a, b) in enumerate(steps):
        for c, d in steps[:i]:
            if (column[a], column[b]) == (column[c], column[d]):
                found += (ys[a] - ys[c]) * (ys[b] - ys[d]) < 0
    return found


def _straightened(
    order: dict[int, list[str]], near: dict[str, list[str]], ys: dict[str, float]
) -> dict[str, float]:
    """Pull every key towards its neighbours, with at least one unit between two of a layer."""
    ys = {key: i - (len(keys) - 1) / 2 for keys in order.values() for i, key in enumerate(keys)}
    for sweep in range(_SWEEPS):
        for x in sorted(order, reverse=bool(sweep % 2)):
            wanted = [_mean(near[key], ys, ys[key]) for key in order[x]]
            ys.update(zip(order[x], _spaced(wanted), strict=True))
    return ys


def _spaced(wanted: Sequence[float]) -> list[float]:
    """The closest heights (least squares) that rise by one unit at least: pooled neighbours."""
    blocks: list[tuple[float, int]] = []  # mean of wanted minus rank, and how many keys
    for rank, value in enumerate(wanted):
        blocks.append((value - rank, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2:]
            blocks[-2:] = [((a * n + b * m) / (n + m), n + m)]
    flat = [mean for mean, size in blocks for _ in range(size)]
    return [mean + rank for rank, mean in enumerate(flat)]


def _mean(keys: Sequence[str], ys: dict[str, float], otherwise: float) -> float:
    return sum(ys[key] for key in keys) / len(keys) if keys else otherwise


def as_dot(named: Sequence[tuple[str, Genotype]]) -> str:
    """Genotypes in Graphviz' DOT language: one graph, a cluster per cell."""
    lines = ["digraph genotypes {", "  rankdir=LR;", "  node [shape=box];"]
    for number, (name, genotype) in enumerate(named):
        for cell in CELLS:
            lines += _dot_cluster(f"{number}_{cell}", f"{name}: {TITLES[cell]}", genotype, cell)
    return "\n".join([*lines, "}", ""])


def _dot_cluster(key: str, title: str, genotype: Genotype, cell: str) -> list[str]:
    edges = genotype.cell(cell == "reduce")
    nodes = {j for _, j, _ in edges} | {0, 1} | set(alive_nodes(edges))
    lines = [f"  subgraph cluster_{key} {{", f"    label={_quoted(title)};"]
    lines += [f"    g{key}_{n} [label={_quoted(node_name(n))}];" for n in sorted(nodes)]
    lines += [f"    g{key}_out [label={_quoted(OUTPUT)}];"]
    lines += [f"    g{key}_{j} -> g{key}_{i} [label={_quoted(o)}];" for o, j, i in edges]
    lines += [f"    g{key}_{n} -> g{key}_out [style=dashed];" for n in alive_nodes(edges)]
    return [*lines, "  }"]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def as_text(named: Sequence[tuple[str, Genotype]]) -> str:
    """Genotypes for a terminal, in plain ASCII: a line per edge."""
    return "\n".join(_text(name, genotype) for name, genotype in named)


def _text(name: str, genotype: Genotype) -> str:
    lines = [" ".join(name.split())]
    for cell in CELLS:
        edges = genotype.cell(cell == "reduce")
        lines += ["", f"  {TITLES[cell]}"]
        for operation, source, node in edges:
            lines.append(f"    {node_name(source):<6} --{operation:-^16}--> {node}")
        joined = " ".join(map(str, alive_nodes(edges)))
        lines.append(f"    {joined} ==concatenated==> {OUTPUT}")
    return "\n".join([*lines, ""])
