"""Where a plan stands: what a store holds of it, and so what is left. No torch, no ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from nas_sweeps.chain import Chain, Entry, Outcome
from nas_sweeps.grid import Plan
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.store.ledger import Store
from nas_sweeps.store.records import Result


def outcome_of(result: Result) -> Outcome:
    """What the chain has to know of a result."""
    done = result.state == "done"
    return Outcome(
        state=result.state,
        genotype=Genotype(*result.genotype) if done and result.genotype else None,
        accuracy_validation=result.metrics.get("accuracy_validation"),
    )


Retry = Literal["none", "lost", "failed"]


def standing(
    plan: Plan,
    store: Store,
    *,
    retry: Retry = "none",
    chosen: Callable[[Entry], bool] | None = None,
) -> Chain:
    """A plan's chain after everything that the store has settled.

    Args:
        retry: which failures count as trials that never ran: ``lost`` those that were nobody's
            mistake (a worker that died, no memory, no space), ``failed`` all of them.
        chosen: as for ``Chain``.
    """
    return Chain(
        plan,
        {
            trial_id: outcome_of(result)
            for trial_id, result in store.results().items()
            if not _again(result, retry)
        },
        chosen,
    )


def _again(result: Result, retry: Retry) -> bool:
    return result.state == "failed" and (
        retry == "failed" or (retry == "lost" and result.transient)
    )
