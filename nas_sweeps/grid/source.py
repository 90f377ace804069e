"""Reading a grid file: YAML into plain dicts and lists, and ``--set`` on top of them.

Stricter than YAML where leniency hides mistakes or costs memory: a key written twice is an
error, and aliases may not repeat themselves into something huge. Numbers are those of YAML 1.2,
less those that begin with a 0 too many: PyYAML follows YAML 1.1, to which ``1e-3`` is text, ``1:5``
is 65 (sexagesimal) and ``010`` is 8 (octal). Here the latter two are text, which no number takes.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nas_sweeps.grid.messages import Place, dotted, shown
from nas_sweeps.paths import user_path

MAX_BYTES = 2**20  # a grid is written by a person: a file above this is another file
MAX_VALUES = 20_000  # after aliases are expanded, which could otherwise fill the memory
_TEXT = 100  # characters that count as one more value: aliases repeat long texts too
MAX_DEPTH = 32  # no setting lies deeper than 7; the JSON parser stops at 200, Python near 1000


class Unreadable(ValueError):
    """What is wrong with a text as YAML, with line and column where they are known."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with other numbers, which stops at too many values before they fill the memory."""

    _values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _too_many()
        return super().compose_node(parent, index)


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_NUMBERS = {
    _INT: re.compile(r"[-+]?(?:0|[1-9]\d*|0x[0-9a-fA-F]+)$"),
    _FLOAT: re.compile(
        r"[-+]?(?:\.\d+|(?:0|[1-9]\d*)(?:\.\d*)?)(?:[eE][-+]?\d+)?$"
        r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag not in _NUMBERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _form in _NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, _form, list("-+.0123456789"))


def read(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The tree of a grid file, and what is wrong with it that does not stop the reading.

    Raises:
        Unreadable: no such file, too large, not text, not YAML, not a mapping.
    """
    tree, twice = parse(_text(path))
    if not isinstance(tree, dict):
        raise Unreadable("a grid file holds sections: data, search, retrain, tune, exclude")
    return tree, twice


def parse(text: str) -> tuple[Any, list[str]]:
    """YAML to plain values, and a line for every key that is written twice.

    Raises:
        Unreadable: it is not YAML, or its aliases recur or explode.
    """
    try:
        return _parse(text)
    except yaml.MarkedYAMLError as error:
        words = ", ".join(filter(None, (error.context, error.problem)))
        raise Unreadable(f"{_at(error.problem_mark)}{words}") from None
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except Unreadable:
        raise
    except (yaml.YAMLError, ValueError) as error:  # a control character, a number of 5,000 digits
        raise Unreadable(f"not YAML: {' '.join(str(error).split())}") from None
    except (LookupError, AttributeError):  # how PyYAML takes `!!int ""` and `!!timestamp x`
        raise Unreadable("not YAML: a value does not fit its !! tag; leave the tag out") from None


def _parse(text: str) -> tuple[Any, list[str]]:
    loader = _Loader(text)
    twice: list[str] = []
    try:
        node = loader.get_single_node()
        if node is None:
            return None, twice
        if _size(node, {}, twice) > MAX_VALUES:
            raise _too_many()
        return loader.construct_document(node), twice
    finally:
        loader.dispose()


def plain(value: Any, depth: int = 0) -> Any:
    """What JSON can hold; numbers that no float can hold become text, which no number field takes.

    Raises:
        Unreadable: nested too deeply, or a text with half a character in it.
    """
    if depth > MAX_DEPTH:
        raise Unreadable("it is nested too deeply")
    if isinstance(value, Mapping):
        return {_whole(str(key)): plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner, depth + 1) for inner in value]
    if isinstance(value, int):
        return value if value.bit_length() < 1024 else str(math.inf if value > 0 else -math.inf)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None else _whole(str(value))


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unreadable(
            f"{shown(text)} holds half a character (a lone surrogate); write it whole"
        ) from None
    return text


def _too_many() -> Unreadable:
    return Unreadable(f"more than {MAX_VALUES:,} values, aliases expanded: this is no grid file")


# What an override takes the place of, unless that was set by an override itself.
_REPLACED: dict[Place, set[tuple[str, str]]] = {
    ("data", "path"): {("data", "dataset")},
    ("data", "dataset"): {("data", "path"), ("data", "fingerprint")},
}


def override(tree: dict[str, Any], settings: Sequence[str]) -> tuple[list[Place], list[str]]:
    """Apply ``place=value`` settings to the tree: the places set, and lines on bad ones.

    Missing sections are created. ``data.path`` is relative to the current folder, as every
    path on a command line is. It and ``data.dataset`` each replace the other where the file has it.
    """
    places: list[Place] = []
    wrong: list[str] = []
    for setting in settings:
        text, equals, value = setting.partition("=")
        place = tuple(text.strip().split("."))
        try:
            if not equals or not all(place):
                raise Unreadable("write section.setting=value, such as search.seeds=[0,1]")
            _put(tree, place, _value(place, value))
            places.append(place)
            for _, name in _REPLACED.get(place, set()) - set(places):
                tree["data"].pop(name, None)
        except Unreadable as error:
            wrong.append(f"--set {text.strip()}: {error}")
    return places, wrong


def _value(place: Place, text: str) -> Any:
    value, twice = parse(text)
    if twice:
        raise Unreadable(twice[0])
    if place == ("data", "path") and isinstance(value, str):
        try:
            return os.path.abspath(user_path(value))
        except ValueError as error:
            raise Unreadable(str(error)) from None
    return value


def _put(tree: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    for depth, part in enumerate(place[:-1], start=1):
        inner = tree.get(part)
        if inner is None:
            inner = tree[part] = {}
        if not isinstance(inner, dict):
            raise Unreadable(f"{dotted(place[:depth])} is not a section; set it as a whole")
        tree = inner
    tree[place[-1]] = value


def _text(path: Path) -> str:
    try:
        kind = os.stat(path).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # reading a pipe may wait for ever
            raise Unreadable("a device or a pipe; save the grid in a file and name that")
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise Unreadable(f"larger than {MAX_BYTES // 1024} KiB: this is not a grid file")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise Unreadable("no such file") from None
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Unreadable(f"not UTF-8 text at byte {error.start}; save it as UTF-8") from None


def _at(mark: yaml.Mark | None) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


def _size(node: yaml.Node, sizes: dict[int, int], twice: list[str]) -> int:
    """How many values a node stands for once aliases are expanded; notes repeated keys."""
    if isinstance(node, yaml.ScalarNode):
        return 1 + len(node.value) // _TEXT
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise Unreadable(f"{_at(node.start_mark)}an alias contains itself")
        return sizes[id(node)]
    sizes[id(node)] = 0  # being counted
    if isinstance(node, yaml.MappingNode):
        _join_decimal_commas(node)
        _note_repeated(node, twice)
        children = [child for pair in node.value for child in pair]
    else:
        children = list(node.value)
    sizes[id(node)] = 1 + sum(_size(child, sizes, twice) for child in children)
    return sizes[id(node)]


def _join_decimal_commas(node: yaml.MappingNode) -> None:
    """Make ``{lr: 0,025}`` the text that was written: to YAML it is lr 0, and 025 without a value.

    A message can then say what was meant.
    """
    whole: list[tuple[yaml.Node, yaml.Node]] = []
    for key, value in node.value:
        before = whole[-1][1] if whole else None
        if (
            isinstance(before, yaml.ScalarNode)
            and before.tag == _INT
            and isinstance(key, yaml.ScalarNode)
            and key.value.isdecimal()
            and value.start_mark.index == value.end_mark.index == key.end_mark.index
            and key.start_mark.index == before.end_mark.index + 1
        ):
            text, marks = f"{before.value},{key.value}", (before.start_mark, key.end_mark)
            whole[-1] = (whole[-1][0], yaml.ScalarNode("tag:yaml.org,2002:str", text, *marks))
        else:
            whole.append((key, value))
    node.value = whole


def _note_repeated(node: yaml.MappingNode, twice: list[str]) -> None:
    first: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        if key.value in first:
            was = first[key.value]
            twice.append(
                f"{_at(key.start_mark)}'{key.value}' is written twice (first on line {was});"
                " keep one"
            )
        first.setdefault(key.value, line)
