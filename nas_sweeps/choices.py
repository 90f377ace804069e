"""What a person chooses from, in Python and on the command line alike. Nothing is imported."""

from __future__ import annotations

from typing import Literal, get_args

Retry = Literal["none", "lost", "failed"]  # which failures of earlier runs are tried again
Tracker = Literal["tensorboard", "wandb", "mlflow"]  # who else is told of every epoch
TRACKERS: tuple[Tracker, ...] = get_args(Tracker)
TableFormat = Literal["text", "markdown", "latex", "csv"]  # how a table is written
TABLE_FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)
DrawFormat = Literal["text", "dot", "svg", "pdf", "png"]  # how cells are drawn
DRAW_FORMATS: tuple[DrawFormat, ...] = get_args(DrawFormat)
