"""The tables as pandas, each converted when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Self

import pandas as pd
import pyarrow as pa

from nas_sweeps.names import HEADLINE
from nas_sweeps.tables.schemas import SCHEMAS, to_frame


def require_columns(frame: pd.DataFrame, table: str, *names: str) -> None:
    """Raises ValueError where ``load`` was asked for too few columns of a table."""
    missing = [name for name in names if name not in frame]
    if missing:
        raise ValueError(
            f"this needs columns of {table} that were not loaded: {', '.join(missing)}; name "
            "them in `columns` too, or load without it"
        )


class Frames:
    """The tables of a store as it was when ``load`` read it.

    Rows are sorted by trial (genotypes by genotype); ``schemas`` says what the columns are. A
    frame is made when it is first asked for and kept, so what nobody asks for costs little.
    ``alphas``, which is far larger than the rest, is read from the store only then.
    """

    def __init__(
        self,
        tables: Mapping[str, Callable[[], pa.Table]],
        headline: Callable[[], str] | None = None,
    ) -> None:
        self._sources, self._headline = dict(tables), headline
        self._tables: dict[str, pa.Table] = {}

    def arrow(self, name: str) -> pa.Table:
        """A table as Arrow has it. Raises ValueError where no table has this name."""
        if name not in self._sources:
            raise ValueError(f"no table '{name}'; choose from {', '.join(self._sources)}")
        if name not in self._tables:
            self._tables[name] = self._sources[name]()
        return self._tables[name]

    @cached_property
    def headline(self) -> str:
        """The column that is shown where none is asked for, as the store's latest grid says."""
        return HEADLINE if self._headline is None else self._headline()

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per trial, in any state."""
        return to_frame(self.arrow("trials"))

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One row per epoch of a trial."""
        return to_frame(self.arrow("epochs"))

    @cached_property
    def classes(self) -> pd.DataFrame:
        """One row per class of a trial."""
        return to_frame(self.arrow("classes"))

    @cached_property
    def genotypes(self) -> pd.DataFrame:
        """One row per edge of a genotype."""
        return to_frame(self.arrow("genotypes"))

    @cached_property
    def attempts(self) -> pd.DataFrame:
        """One row per attempt at a trial."""
        return to_frame(self.arrow("attempts"))

    @cached_property
    def alphas(self) -> pd.DataFrame:
        """One row per search epoch, with all weights in one array; see ``edge_weights``."""
        return to_frame(self.arrow("alphas"))

    def table(
        self,
        rows: Sequence[str] = ("method",),
        columns: Sequence[str] = ("distribution", "mu"),
        value: str | None = None,
    ) -> pd.DataFrame:
        """Retrained networks side by side: mean, sd and n of ``value``; see ``summarise``.

        >>> import nas_sweeps as ns
        >>> ns.load("runs/quickstart").table().xs("mean", axis=1, level="statistic").round(3)
        distribution balance    exp
        mu               NaN    0.1
        method
        darts          0.750  0.500
        fairdarts      0.800  0.550
        ssf_nas        0.875  0.625
        """
        from nas_sweeps.tables.summary import summarise

        return summarise(self, value, rows, columns)

    def learning_curves(
        self,
        value: str | None = None,
        by: Sequence[str] = ("method", "distribution", "mu"),
        phase: str = "retrain",
    ) -> pd.DataFrame:
        """``value`` by epoch: mean, sd and n over the trials that are done; see there.

        >>> import nas_sweeps as ns
        >>> curves = ns.load("runs/quickstart").learning_curves(by=["method", "mu"])
        >>> curves[curves.mu == 0.1].pivot(index="epoch", columns="method", values="mean").round(3)
        method  darts  fairdarts  ssf_nas
        epoch
        1        0.25      0.275      NaN
        2        0.50      0.550    0.312
        3         NaN        NaN    0.625
        """
        from nas_sweeps.tables.summary import learning_curves

        return learning_curves(self, value, by, phase)

    def replaced(self, **frames: pd.DataFrame) -> Self:
        """The same with other frames in the place of some."""
        assert frames.keys() <= SCHEMAS.keys(), f"no tables: {frames.keys() - SCHEMAS.keys()}"
        sources = self._sources | {
            name: lambda frame=frame: pa.Table.from_pandas(frame, preserve_index=False)
            for name, frame in frames.items()
        }
        other = type(self)(sources, self._headline)
        other._tables = {n: t for n, t in self._tables.items() if n not in frames}
        other.__dict__ |= {n: v for n, v in self.__dict__.items() if n in SCHEMAS} | frames
        return other
