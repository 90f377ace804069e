"""Mistakes in a grid file, as lines that say where, what, and what to do next.

Pydantic finds most mistakes, all of them in one pass; this module words them. The checks
of ours that a type cannot express join the same pass through ``Problems``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import InitErrorDetails, PydanticCustomError

from nas_sweeps.hints import did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Place = tuple[str | int, ...]
MAX_TOLD = 30  # mistakes of one file; whoever made more wants to see the first
_SHOWN = 60  # characters of a wrong value that a message repeats
_LINE = 1000  # characters of a whole message

_WORDS = {
    "missing": "is required; add it",
    "tuple_type": "must be a list such as [a, b], not {value}",
    "string_type": "{value} is not text; put it in quotes",
    "bool_type": "{value} is neither true nor false",
    "int_type": "{value} is not a whole number",
    "int_from_float": "{value} is not a whole number",
    "int_parsing": "{value} is not a whole number",
    "float_type": "{value} is not a number",
    "float_parsing": "{value} is not a number",
    "model_type": "must be a section of `setting: value` lines, not {value}",
    "dataclass_type": "must be a section of `setting: value` lines, not {value}",
    "too_short": "is empty; list at least one",
    "greater_than": "{value} is out of range; it must be greater than {gt:g}",
    "greater_than_equal": "{value} is out of range; it must be at least {ge:g}",
    "less_than": "{value} is out of range; it must be less than {lt:g}",
    "less_than_equal": "{value} is out of range; it must be at most {le:g}",
    "string_pattern_mismatch": "{value} does not have the form {pattern}",
}
_NUMBERS = ("int_type", "int_from_float", "int_parsing", "float_type", "float_parsing")
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


class GridError(ValueError):
    """The mistakes of one grid, a line each: ``<file>: <place>: what is wrong; what to do``."""

    def __init__(self, *lines: str) -> None:
        super().__init__(*dict.fromkeys(map(one_line, lines)))

    def __str__(self) -> str:
        return "\n".join(self.args)


class Problems:
    """Collects mistakes with their places, then raises them together."""

    def __init__(self) -> None:
        self._found: list[InitErrorDetails] = []

    def add(self, message: str, *place: str | int, value: object = None) -> None:
        error = PydanticCustomError("grid", "{message}", {"message": message})
        self._found.append(InitErrorDetails(type=error, loc=place, input=value))

    def merge(self, error: ValidationError) -> None:
        """Take over what pydantic found below the same place."""
        for found in error.errors():
            if found["type"] == "grid":
                self.add(found["ctx"]["message"], *found["loc"], value=found["input"])
            else:
                self._found.append(
                    InitErrorDetails(
                        type=found["type"],
                        loc=found["loc"],
                        input=found["input"],
                        ctx=found.get("ctx", {}),
                    )
                )

    def __bool__(self) -> bool:
        return bool(self._found)

    def check(self) -> None:
        """Raises ``ValidationError`` if anything was added; pydantic merges it with its own."""
        if self._found:
            raise ValidationError.from_exception_data("grid", self._found)


def prepared(prepare: Callable[[Any, Problems], Any]) -> WrapValidator:
    """Unfold a section before pydantic checks it, and report what both find together."""

    return checked(prepare, lambda made, found: None)


def checked(
    prepare: Callable[[Any, Problems], Any], complain: Callable[[Any, Problems], None]
) -> WrapValidator:
    """``prepared``, and of what pydantic finds sound, what does not go together."""

    def run(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        found = Problems()
        made = None
        try:
            made = handler(prepare(value, found))
        except ValidationError as error:
            found.merge(error)
        found.check()
        complain(made, found)
        found.check()
        return made

    return WrapValidator(run)


def problem(message: str) -> PydanticCustomError:
    """A single mistake at the place that is being validated: ``raise problem(...)``."""
    return PydanticCustomError("grid", "{message}", {"message": message})


def dotted(place: Iterable[str | int]) -> str:
    """``("search", "methods", 1)`` as ``search.methods[1]``."""
    text = ""
    for part in place:
        name = f"[{part}]" if isinstance(part, int) else _cut(part)
        text += f".{name}" if text and not isinstance(part, int) else name
    return text


def one_line(text: str) -> str:
    """Any text as one line that a terminal can show: what it cannot is escaped, the middle cut."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= _LINE else f"{text[: _LINE // 2]} … {text[-_LINE // 2 :]}"


def unknown(what: str, value: object, choices: Iterable[str]) -> str:
    """``unknown method 'fair_dart'; choose from … (did you mean fairdarts?)``."""
    known = list(choices)
    hint = did_you_mean(value, known)
    return f"unknown {what} {shown(value)}; choose from {', '.join(known)}{hint}"


def shown(value: object) -> str:
    """A value on one line, cut short."""
    return "nothing" if value is None else _cut(repr(value))


def number_meant(value: object) -> str:
    """``; write 0.025`` for a text that spells a number otherwise, such as ``0,025``; or nothing.

    Also ``012`` (8 or 12, depending on the version of YAML) and ``1_000``.
    """
    if not isinstance(value, str):
        return ""
    if re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+", value):
        thousands = value.replace(",", "")
        return f"; write {thousands}" + (f" or {value.replace(',', '.')}" * (value.count(",") == 1))
    spelled = re.fullmatch(r"([-+]?)0*(\d[\d_]*)(?:[.,](\d*))?", value.strip())
    if spelled is None:
        return ""
    sign, whole, fraction = spelled[1], spelled[2].replace("_", ""), spelled[3]
    number = sign + whole + (f".{fraction}" if fraction else "")
    return "" if number == value.strip() else f"; write {number}"


def describe(error: ErrorDetails, settings: Callable[[Place], Sequence[str]]) -> str:
    """What is wrong and what to do, for one of pydantic's findings.

    ``settings`` answers which settings the section at a place has.
    """
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind in _UNKNOWN:
        return unknown("setting", error["loc"][-1], settings(error["loc"][:-1]))
    if kind == "literal_error":
        return unknown("choice", value, _choices(context["expected"]))
    if kind.startswith("missing"):
        kind = "missing"
    if kind in _WORDS:
        meant = number_meant(value) if kind in _NUMBERS else ""
        return _WORDS[kind].format(value=shown(value), **context) + meant
    text: Any = context.get("error", error["msg"])  # a ValueError raised by a method's own check
    return str(text).replace("\n", " ")


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _choices(expected: str) -> list[str]:
    """Pydantic's ``'a', 'b' or 'c'`` as a list."""
    return [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",")]
