"""``retrain.genotypes``: published ones by name, and those that other code wrote into files.

A file is read when the grid is, and the resolved grid holds the cells themselves, so that a stored
grid plans where the file is not. Nothing of a file is executed.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationInfo

from nas_sweeps import methods
from nas_sweeps.grid.messages import problem, shown, unknown
from nas_sweeps.hints import did_you_mean
from nas_sweeps.paths import user_path
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.space.literals import Refused, from_fields, from_nni, from_node, genotype_calls
from nas_sweeps.space.published import PUBLISHED

MAX_BYTES = 64 * 2**20  # of a log, which is read by the line; more is another kind of file
MAX_PARSED = 2**20  # characters of Python or JSON: parsed, they take 500 times as much memory
_FORMS = (
    'a published name, "genotypes.py:NAME", "search.log:last" (first, epoch 24, or a number from '
    '0), {file: nni.json, name: MINE}, or "Genotype(normal=[...], ...)"'
)
_EPOCH = re.compile(r"\bepoch\W{0,3}(\d{1,9})", re.IGNORECASE)
_PLACE = re.compile(r"first|last|-?\d{1,9}|epoch[ =]?\d{1,9}", re.IGNORECASE)  # of several in a log


@dataclass(frozen=True, slots=True)
class GivenGenotype:
    """A genotype that a grid names.

    ``name`` is what tables call it; ``file`` is where it was read from, empty for published ones.
    """

    name: str
    genotype: Genotype
    file: str = ""

    def to_json(self) -> str | dict[str, Any]:
        """In the grid language, with everything that planning needs."""
        if self.file == "" and PUBLISHED.get(self.name) == self.genotype:
            return self.name
        kept = {"name": self.name, "cells": self.genotype.to_json()}
        return kept | ({"file": self.file} if self.file else {})


def given_genotype(value: Any, info: ValidationInfo) -> GivenGenotype:
    """One entry of ``retrain.genotypes``. Raises a ``problem`` that says what is wrong with it."""
    try:
        found = _found(value, Path((info.context or {}).get("base", ".")))
    except Refused as error:
        raise problem(f"{_called(value)}: {error}") from None
    if found.name in methods.names():
        raise problem(
            f"{shown(found.name)} is the name of a search method; write "
            "{file: ..., name: ANOTHER}"
        )
    if info.context is not None:  # for rules of exclude
        info.context.setdefault("genotypes", []).append(found.name)
    return found


def check_names(given: Sequence[GivenGenotype]) -> None:
    """One name stands for one genotype. Raises a ``problem``."""
    known = dict(PUBLISHED)
    for one in given:
        if known.setdefault(one.name, one.genotype) != one.genotype:
            raise problem(
                f"{one.name} names two genotypes; write {{file: {one.file or '...'}, take: "
                f"{one.name}, name: ANOTHER}} for one of them"
            )


def _found(value: Any, base: Path) -> GivenGenotype:
    if isinstance(value, str):
        text = value.strip()
        if text in PUBLISHED:
            return GivenGenotype(text, PUBLISHED[text])
        if "Genotype(" in text:
            found = _in_log(text, "last")
            return GivenGenotype(f"genotype-{found.genotype_id[:8]}", found)
        file, colon, take = text.rpartition(":") if ":" in text else (text, "", "")
        if not colon and not Path(text).suffix and "/" not in text:
            raise problem(unknown("genotype", text, PUBLISHED))
        return _from_file(file, take.strip(), None, base)
    if not isinstance(value, dict):
        raise problem(f"{shown(value)} is no genotype; write {_FORMS}")
    strange = set(value) - {"name", "file", "take", "cells"}
    if strange or not {"file", "cells"} & set(value):
        raise problem(f"{shown(value)} is no genotype; write {_FORMS}")
    name = value.get("name")
    if name is not None and not (isinstance(name, str) and re.fullmatch(r"\w[\w.-]{0,63}", name)):
        raise problem(f"name: {shown(name)} is to stand in tables; use letters, digits and _ . -")
    if "cells" in value:
        return _resolved(value)
    take = "" if value.get("take") is None else str(value["take"])
    return _from_file(str(value["file"]), take.strip(), name, base)


def _resolved(value: Mapping[str, Any]) -> GivenGenotype:
    """What ``GivenGenotype.to_json`` wrote."""
    try:
        genotype = Genotype.from_json(value["cells"])
    except ValueError as error:
        raise problem(f"cells: {error}") from None
    name = value.get("name") or f"genotype-{genotype.genotype_id[:8]}"
    return GivenGenotype(name, genotype, str(value.get("file", "")))


def _called(value: Any) -> str:
    called = value.get("file") if isinstance(value, dict) else value
    return str(called)[:60]


# Files


def _from_file(file: str, take: str, name: str | None, base: Path) -> GivenGenotype:
    """The genotype that ``take`` says of a file: a variable, or a place in a log."""
    text, path = _text(file, base), Path(file)
    if path.suffix == ".json":
        found, called = _in_json(text), path.stem
        if take:
            raise problem(f"{file} holds one genotype; leave ':{take}' out")
    elif _PLACE.fullmatch(take) or (not take and path.suffix != ".py"):
        found = _in_log(text, take)
        called = f"{path.stem}-{take.replace(' ', '')}" if take else path.stem
    else:
        called, found = _in_module(text, take, file)
    called = name or re.sub(r"[^\w.-]+", "_", called).strip("_.-") or "genotype"
    return GivenGenotype(called[:64], found, path.name)


def _text(file: str, base: Path) -> str:
    try:
        path = base / user_path(file)
        if path.exists() and not path.is_file():  # reading a pipe may wait for ever
            raise problem(f"{file} is no file; name the file that holds the genotype")
        if path.stat().st_size > MAX_BYTES:
            raise problem(f"{file} is larger than {MAX_BYTES // 2**20} MiB; take out the lines")
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        raise problem(f"there is no file {base / file}; paths start at the grid file") from None
    except OSError as error:
        raise problem(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise problem(str(error)) from None


def _in_module(text: str, take: str, file: str) -> tuple[str, Genotype]:
    """A variable of a Python file; the only one, where none is named."""
    _check_length(text)
    try:
        named = dict(genotype_calls(ast.parse(text)))
    except SyntaxError as error:
        if take and Path(file).suffix != ".py":
            raise problem(
                f"{take!r} is no place in {file}; write last, first, 'epoch 24' or a number from 0"
            ) from None
        raise Refused(f"not Python: {error.msg}", error.lineno) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise Refused(f"not Python: {error}") from None
    choices = ", ".join(named) or "none"
    if not take and len(named) != 1:
        raise problem(f'say which genotype of {file}, such as "{file}:NAME"; it holds {choices}')
    take = take or next(iter(named))
    if take not in named:
        raise problem(f"{file} holds no genotype {take!r}; it holds {choices}" + _near(take, named))
    return take, from_node(named[take])


def _near(name: str, named: Mapping[str, Any]) -> str:
    return did_you_mean(name, named)


def _in_log(text: str, take: str) -> Genotype:
    """One of the genotypes that a log prints, a line each, under lines that count the epochs."""
    found: list[tuple[int | None, int, str]] = []  # epoch, line, text
    epoch = None
    for number, line in enumerate(text.splitlines(), 1):
        counted = _EPOCH.search(line)
        epoch = int(counted[1]) if counted else epoch
        begin = line.find("Genotype(")
        if begin >= 0 and "namedtuple(" not in line:
            found.append((epoch, number, line[begin:]))
    if not found:
        raise Refused("it prints no genotype: no line holds Genotype(")
    _, number, text = _chosen(found, take)
    return from_node(_call(text, number), number)


def _chosen(found: Sequence[tuple[int | None, int, str]], take: str) -> tuple[Any, int, str]:
    epoch = re.fullmatch(r"epoch[ =]?(\d+)", take, re.IGNORECASE)
    if epoch is not None:
        meant = [one for one in found if one[0] == int(epoch[1])]
        if not meant:
            known = sorted({one[0] for one in found if one[0] is not None})
            span = f"its epochs are {known[0]} to {known[-1]}" if known else "it counts no epochs"
            raise Refused(f"it prints no genotype of epoch {epoch[1]}; {span}")
        return meant[-1]
    if not take and len(found) > 1:
        raise Refused(
            f"it prints {len(found)} genotypes; add :last, :first, ':epoch 24' or a number from 0"
        )
    place = {"": 0, "first": 0, "last": -1}.get(take.lower())
    place = int(take) if place is None else place
    if not -len(found) <= place < len(found):
        raise Refused(f"there is no genotype {place}; it prints {len(found)}, counted from 0")
    return found[place]


def _call(text: str, line: int) -> ast.expr:
    """The call at the beginning of a text, whatever stands behind it."""
    depth, quote = 0, ""
    for at, sign in enumerate(text):
        if quote or sign in "'\"":
            quote = "" if sign == quote else quote or sign
        elif sign in "()":
            depth += 1 if sign == "(" else -1
            if depth == 0:
                try:
                    return ast.parse(text[: at + 1], mode="eval").body
                except (SyntaxError, ValueError, RecursionError, MemoryError):
                    break
    raise Refused("its genotype is cut off, or not written as Genotype(normal=[...], ...)", line)


def _check_length(text: str) -> None:
    if len(text) > MAX_PARSED:
        raise Refused(
            f"larger than {MAX_PARSED // 2**20} MiB; put the lines with its genotypes into a file "
            "of their own"
        )


def _in_json(text: str) -> Genotype:
    _check_length(text)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"not JSON: {error}") from None
    while isinstance(value, dict) and isinstance(value.get("best_selected_space"), dict):
        value = value["best_selected_space"]
    if not isinstance(value, dict):
        raise Refused("not a genotype: NNI writes an object with a key for each edge")
    if "normal" in value:
        return from_fields(value)
    lines = {key: text[: text.find(f'"{key}"')].count("\n") + 1 for key in value}
    return from_nni(value, lines)
