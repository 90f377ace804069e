"""A plan replayed from a store: what it holds of it, and so what is left. No torch, no ray."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache

from nas_sweeps.choices import Retry
from nas_sweeps.grid import Entry, Plan
from nas_sweeps.grid.expand import Outcome, Recalled
from nas_sweeps.schedule.scheduler import Scheduler
from nas_sweeps.space.genotype import Genotype
from nas_sweeps.store.ledger import Store
from nas_sweeps.store.records import Result, Settled, State
from nas_sweeps.trial import Trial


def outcome_of(result: Result | Settled) -> Outcome:
    """What the scheduler has to know of a result."""
    settled = Settled.of(result) if isinstance(result, Result) else result
    done = settled.state == State.DONE
    return Outcome(
        state=settled.state,
        genotype=Genotype.from_json(settled.genotype) if done and settled.genotype else None,
        accuracy_validation=settled.accuracy_validation,
        accuracy_macro_validation=settled.accuracy_macro_validation,
        curve=settled.curve,
    )


def replay(
    plan: Plan,
    store: Store,
    *,
    retry: Retry = "none",
    chosen: Callable[[Entry], bool] | None = None,
    settled: Mapping[str, Settled] | None = None,
) -> Scheduler:
    """A plan's scheduler after everything that the store has settled.

    What was pruned by a rule that the plan does not have is to go on: its own rule decides anew.

    Args:
        retry: which failures count as trials that never ran: ``lost`` those that were nobody's
            mistake (a worker that died, no memory, no space), ``failed`` all of them.
        chosen: as for ``Scheduler``.
        settled: what ``store.settled()`` says, where that is known already.
    """
    settled = store.settled() if settled is None else settled
    reasons = plan.reasons
    return Scheduler(
        plan,
        {
            trial_id: outcome_of(result)
            for trial_id, result in settled.items()
            if not runs_again(result, retry, reasons)
        },
        chosen,
        along=along(store),
        recalled=recalled(plan, store),
    )


def along(store: Store) -> Callable[[str], Mapping[int, Genotype]]:
    """The genotypes of a search after each of its epochs, by its id; each search is read once."""

    @cache
    def genotypes(trial_id: str) -> Mapping[int, Genotype]:
        from nas_sweeps.tables.trajectory import genotypes_of

        return genotypes_of(store.layout, trial_id)

    return genotypes


def recalled(plan: Plan, store: Store) -> dict[Recalled, Trial]:
    """What earlier runs put into slots of a plan that are filled so again. Nothing is read where
    there are none."""
    return store.proposals(plan.recalls) if plan.recalls else {}


def result_of(store: Store, trial_id: str, reasons: Collection[str]) -> Result | None:
    """How a trial ended that was handed out; None for how it ended in an earlier run, by a rule
    that no longer is: its worker died before it began."""
    result = store.result(trial_id)
    old = result is not None and runs_again(Settled.of(result), "none", reasons)
    return None if old else result


def runs_again(result: Settled, retry: Retry, reasons: Collection[str] | None) -> bool:
    """Whether a result counts as none.

    Args:
        reasons: ``Plan.reasons``; None: no plan is known, and what is pruned stays so.
    """
    if result.state == State.PRUNED:
        return reasons is not None and result.pruned_by not in reasons
    return result.state == State.FAILED and (
        retry == "failed" or (retry == "lost" and result.transient)
    )
