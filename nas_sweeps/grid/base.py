"""What every section of a grid file is made of."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Lt, MinLen
from pydantic import BaseModel, BeforeValidator, ConfigDict

from nas_sweeps.grid import axes

Seed = Annotated[int, Ge(0), Lt(2**32)]  # the range of numpy's RandomState, which draws subsets
Seeds = Annotated[tuple[Seed, ...], MinLen(1), BeforeValidator(axes.seeds)]


class Section(BaseModel):
    """Unknown settings are errors, values are immutable, ``"3"`` is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
