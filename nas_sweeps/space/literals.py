"""Genotypes as other code writes them down, read without running any of it. No torch.

Python text is parsed with ``ast`` and only literals are taken from it: lists, tuples, dicts, text,
numbers, ``range``. What occurs in public code:

- pairs ``(operation, source)``, two for each node in turn (DARTS, arXiv 1806.09055, and
  most others);
- triples ``(operation, node, source)``, any number of them, also two on one edge (FairDARTS,
  arXiv 1911.12126);
- a list of pairs for each node, with or without further fields (AutoDL-Projects);
- a JSON object with a key for each edge (NNI, before and after version 2.8).

What the space of ``nas_sweeps.space.genotype`` cannot hold is refused with the reason and the line.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from nas_sweeps.space.genotype import CELLS, NODES, OPERATIONS, Edge, Genotype, alive_nodes

FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")  # of a Genotype, in order
NNI_OPERATIONS = {  # as NNI calls them before version 2.8, in the order of its indices
    "maxpool": "max_pool_3x3",
    "avgpool": "avg_pool_3x3",
    "skipconnect": "skip_connect",
    "sepconv3x3": "sep_conv_3x3",
    "sepconv5x5": "sep_conv_5x5",
    "dilconv3x3": "dil_conv_3x3",
    "dilconv5x5": "dil_conv_5x5",
}


class Refused(ValueError):
    """Why a text is no genotype of this space. ``line`` counts from 1; None: not known."""

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason if line is None else f"line {line}: {reason}")


class Items(list[Any]):
    """A list or tuple of a text, with the line that it stands on."""

    line: int | None = None


# From text to values


def genotype_calls(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Everything in a module that is written as a genotype, with its name, in its order.

    Names are those of variables and of keys of dictionaries; ``A = B`` gives B's genotype to A too.
    """
    named: dict[str, ast.expr] = {}
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Dict):
            pairs = zip(statement.keys, statement.values, strict=True)
            for key, value in pairs:
                if isinstance(key, ast.Constant) and _is_genotype(value):
                    named[str(key.value)] = value
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            value = statement.value
            if isinstance(value, ast.Name):
                value = named.get(value.id, value)
            if _is_genotype(value):
                named |= {target.id: value for target in targets if isinstance(target, ast.Name)}
    yield from named.items()


def _is_genotype(node: ast.expr) -> bool:
    if isinstance(node, ast.Dict):
        keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
        return set(CELLS) <= keys
    if not isinstance(node, ast.Call):
        return False
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    return name == "Genotype" or set(CELLS) <= {keyword.arg for keyword in node.keywords}


def from_node(node: ast.expr, first_line: int = 1) -> Genotype:
    """The genotype that a call or a dictionary writes down.

    Args:
        first_line: the line of the file at which the text of the node begins.

    Raises:
        Refused: it holds something but literals, or the space cannot hold it.
    """
    line = node.lineno + first_line - 1
    if isinstance(node, ast.Call):
        given = dict(zip(FIELDS, node.args, strict=False))
        given |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg in FIELDS}
    elif isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        given = {str(k.value): v for k, v in pairs if isinstance(k, ast.Constant)}
    else:
        raise Refused("not a genotype: write Genotype(normal=[...], reduce=[...])", line)
    fields = {name: _value(given[name], first_line - 1) for name in FIELDS if name in given}
    return from_fields(fields, line)


def _value(node: ast.expr, above: int) -> Any:
    """What a literal stands for; sequences become ``Items``."""
    line = node.lineno + above
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple)):
        found = Items(_value(element, above) for element in node.elts)
        found.line = line
        return found
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        arguments = [_value(argument, above) for argument in node.args]
        numbers = all(type(a) is int and 0 <= a < 100 for a in arguments)
        if node.func.id == "range" and 1 <= len(arguments) <= 2 and numbers:
            return Items(range(*arguments))
        if node.func.id in ("list", "tuple") and len(arguments) == 1:
            return arguments[0]
    try:
        text = ast.unparse(node)[:40]
    except RecursionError:
        text = type(node).__name__
    raise Refused(f"`{text}` is no literal; nothing of a file is executed", line)


# From values to a genotype


def from_fields(fields: Mapping[str, Any], line: int | None = None) -> Genotype:
    """A genotype by the four fields of DARTS, of which the concatenations may be missing or None.

    Raises:
        Refused: a cell is missing or is not written in a form that is known, or the space cannot
            hold it.
    """
    cells: dict[str, tuple[Edge, ...]] = {}
    for cell in CELLS:
        if not isinstance(fields.get(cell), (list, tuple)) or not fields[cell]:
            raise Refused(
                f"it has no {cell} cell; this space has a normal and a reduction cell", line
            )
        at = getattr(fields[cell], "line", None) or line
        cells[cell] = _edges(cell, fields[cell], at)
        _check_concat(cell, fields.get(f"{cell}_concat"), cells[cell], at)
    try:
        return Genotype(**cells)
    except ValueError as error:
        raise Refused(str(error), line) from None


def _edges(cell: str, entries: Sequence[Any], line: int | None) -> tuple[Edge, ...]:
    if not all(isinstance(entry, (list, tuple)) and entry for entry in entries):
        raise Refused(f"{cell}: it must hold (operation, source) pairs", line)
    placed: list[tuple[Any, int | None]]
    if not isinstance(entries[0][0], str):  # a list of pairs for each node
        _check_nodes(cell, len(entries), line)
        placed = [(e, node) for node, group in enumerate(entries, NODES[0]) for e in group]
    elif all(len(entry) == 3 and _whole(entry[2]) is not None for entry in entries):
        placed = [((e[0], e[2]), _whole(e[1])) for e in entries]
        _check_nodes(cell, max((node or 0) - 1 for _, node in placed), line)
    else:
        if len(entries) % 2:
            raise Refused(
                f"{cell}: {len(entries)} pairs, and they come two for each node; write the node "
                "into each: (operation, node, source)",
                line,
            )
        _check_nodes(cell, len(entries) // 2, line)
        placed = [(e, NODES[0] + i // 2) for i, e in enumerate(entries)]
    return tuple(_edge(cell, entry, node, line) for entry, node in placed)


def _edge(cell: str, entry: Any, node: int | None, line: int | None) -> Edge:
    line = getattr(entry, "line", None) or line
    if not isinstance(entry, (list, tuple)) or len(entry) < 2 or not isinstance(entry[0], str):
        raise Refused(f"{cell}: {entry!r} is no pair (operation, source)", line)
    operation, source = entry[0], _whole(entry[1])
    if operation == "none":
        raise Refused(f"{cell}: the operation none passes nothing on; leave its edge out", line)
    if operation not in OPERATIONS:
        known = ", ".join(OPERATIONS[1:])
        raise Refused(f"{cell}: operation {operation!r} is not in this space ({known})", line)
    if source is None or node is None or node not in NODES or not 0 <= source < node:
        raise Refused(f"{cell}: there is no edge from node {entry[1]} to node {node}", line)
    return OPERATIONS[OPERATIONS.index(operation)], source, node


def _check_nodes(cell: str, number: int, line: int | None) -> None:
    if number > len(NODES):
        raise Refused(
            f"{cell}: {number} intermediate nodes, and cells of this space have {len(NODES)}", line
        )


def _check_concat(cell: str, concat: Any, edges: Sequence[Edge], line: int | None) -> None:
    """A cell of this space gives on every node that has an input."""
    if concat is None:
        return
    nodes = [_whole(node) for node in concat] if isinstance(concat, (list, tuple)) else [None]
    if not set(nodes) <= set(NODES):
        raise Refused(f"{cell}_concat: {concat!r} are no intermediate nodes (2 to 5)", line)
    left_out = sorted(set(alive_nodes(edges)) - set(nodes))
    if left_out:
        raise Refused(
            f"{cell}_concat leaves out node {', '.join(map(str, left_out))} (partial concat); a "
            "cell of this space puts out every node that has an input",
            line,
        )


def _whole(value: Any) -> int | None:
    """A whole number, also one that is written as text; None for anything else."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value if type(value) is int else None


# NNI


def from_nni(value: Mapping[str, Any], lines: Mapping[str, int]) -> Genotype:
    """A genotype by the choices of NNI's DARTS space, of either of its two forms.

    ``normal_n3_p1`` is the operation from node 1 to node 3, by name or by index; of these,
    ``normal_n3_switch`` lists those that are taken. From version 2.8, ``normal/op_3_0`` is an
    operation of node 3 and ``normal/input_3_0`` its source.

    Args:
        lines: the line that each key stands on.

    Raises:
        Refused: as ``from_fields``.
    """
    cells: dict[str, list[Any]] = {}
    for cell in CELLS:
        entries = [*_nni_switched(value, cell, lines), *_nni_inputs(value, cell, lines)]
        cells[cell] = [entry for entry in entries if entry is not None]
    return from_fields(cells)


def _nni_switched(value: Mapping[str, Any], cell: str, lines: Mapping[str, int]) -> Iterator[Items]:
    for key, chosen in value.items():
        node, separator, source = key.removeprefix(f"{cell}_n").partition("_p")
        if not key.startswith(f"{cell}_n") or not separator or chosen in ([], None):
            continue
        taken = value.get(f"{cell}_n{node}_switch", [key])
        if isinstance(taken, list) and key in taken:
            chosen = chosen[0] if isinstance(chosen, list) and len(chosen) == 1 else chosen
            yield _nni_entry(key, chosen, node, source, lines)


def _nni_inputs(value: Mapping[str, Any], cell: str, lines: Mapping[str, int]) -> Iterator[Items]:
    for key, chosen in value.items():
        if key.startswith(f"{cell}/op_"):
            place = key.removeprefix(f"{cell}/op_")
            source = value.get(f"{cell}/input_{place}")
            source = source[0] if isinstance(source, list) and len(source) == 1 else source
            yield _nni_entry(key, chosen, place.partition("_")[0], source, lines)


def _nni_entry(key: str, chosen: Any, node: str, source: Any, lines: Mapping[str, int]) -> Items:
    """A triple (operation, node, source)."""
    names = list(NNI_OPERATIONS.values())
    if isinstance(chosen, list) and len(chosen) >= len(names) and sum(map(bool, chosen)) == 1:
        chosen = next(i for i, taken in enumerate(chosen) if taken)  # a truth value for each
    if type(chosen) is int and 0 <= chosen < len(names):
        chosen = names[chosen]
    if not isinstance(chosen, str):
        _refuse(f"{key}: {chosen!r} is no operation of NNI's DARTS space", lines.get(key))
    entry = Items([NNI_OPERATIONS.get(chosen, chosen), node, source])
    entry.line = lines.get(key)
    return entry


def _refuse(reason: str, line: int | None) -> NoReturn:
    raise Refused(reason, line)
