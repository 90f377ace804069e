"""Where a plan stands: what a store holds of it, and so what is left. No torch, no ray."""

from __future__ import annotations

from nas_sweeps.chain import Chain, Outcome
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


def standing(plan: Plan, store: Store, *, retry_failed: bool = False) -> Chain:
    """A plan's chain after everything that the store has settled.

    With ``retry_failed`` a failed trial counts as one that never ran.
    """
    return Chain(
        plan,
        {
            trial_id: outcome_of(result)
            for trial_id, result in store.results().items()
            if result.state == "done" or not retry_failed
        },
    )
