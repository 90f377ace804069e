"""What verbs share: exit codes, arguments, and where they print."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, RenderableType
from rich.text import Text

out = Console(highlight=False, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)

USER_ERROR, NOT_ALL_DONE, INTERRUPTED = 2, 1, 130
STOPPED = 143  # as by SIGTERM: in order, and nothing went wrong

GridFile = Annotated[Path, typer.Argument(metavar="GRID", help="The grid file (YAML).")]
StoreName = Annotated[
    str, typer.Argument(metavar="STORE", help="The folder with results, or its s3:// address.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a grid entry: --set search.seeds=[0,1]"
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Where results go: a folder, or s3://bucket/folder; default runs/<grid name>.",
    ),
]


def names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def show(parts: Iterable[RenderableType]) -> None:
    for part in parts:
        out.print(part, soft_wrap=isinstance(part, (str, Text)))
