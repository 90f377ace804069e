"""Early stopping: the rules, and what they say of a trial by what stands in a store.

A rule decides whether a trial goes on, never what it computes, so it is part of no identity. What
it decides is a function of the curves that it is given: whoever has these can ask again.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from annotated_types import Ge, Gt, Le

from nas_sweeps.trial.fields import STRICT, Positive
from nas_sweeps.tuning.study import MEASURES, Measure, quiet

if TYPE_CHECKING:
    import optuna

Rule = Literal["none", "median", "asha", "hyperband"]
Curve = Mapping[int, float]  # the measure by epoch, of the epochs that were tested


@dataclass(frozen=True, slots=True, kw_only=True)
class Collapse:
    """What of a trial alone says that nothing will come of it. Everything is off by default.

    ``skip_connections``: a search stops whose normal cell, read now, has more of them than this
    (DARTS+, arXiv 1909.06035, criterion 1, stops at two: a limit of 1). ``alpha_entropy``: a search
    stops whose edges have a mean entropy in nats below this in both cells (eight equal operations
    have 2.08). ``not_finite``: a trial whose loss is no longer finite is pruned, not failed.
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    skip_connections: Annotated[int, Ge(0), Le(7)] | None = None
    alpha_entropy: Annotated[float, Gt(0)] | None = None
    not_finite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """When a trial is given up.

    ``rule`` compares it with its peers at equal epochs. ``median``: below the median of those that
    are done, as soon as ``startup`` are (Golovin et al., 2017, section 3.2.2, by Optuna's
    MedianPruner). ``asha``: at the epochs after_epochs x reduction_factor^k, not among the best
    1 / reduction_factor of those that came as far (arXiv 1810.05934). ``hyperband``: the same, with
    several first epochs at which trials by their number are compared (arXiv 1603.06560).

    Nothing is stopped before ``after_epochs`` epochs, but by ``collapse.not_finite``. What is
    compared is ``measure``; None: what the study of the trial maximises, or without one the plain
    accuracy on V.
    """

    __pydantic_config__: ClassVar[Any] = STRICT
    rule: Rule = "none"
    measure: Measure | None = None
    after_epochs: Positive = 5
    startup: Positive = 5  # of median: Optuna's default
    reduction_factor: Annotated[int, Ge(2)] = 3  # of asha and hyperband
    collapse: Collapse = field(default_factory=Collapse)

    def __bool__(self) -> bool:
        return self.rule != "none" or self.collapse != Collapse()

    def reasons(self, phase: str) -> set[str]:
        """Everything that may stand as ``by`` in what it decides: the settings that matter."""
        limits = asdict(self.collapse).items()
        set_ones = [name for name, limit in limits if limit is not None and limit is not False]
        found = {self.collapsed(phase, name) for name in set_ones}
        return found | ({self.compared(phase)} if self.rule != "none" else set())

    @property
    def compares(self) -> Measure:
        """What is compared."""
        return self.measure or MEASURES[0]

    def compared(self, phase: str) -> str:
        """By which settings peers are compared."""
        name = "startup" if self.rule == "median" else "reduction_factor"
        said = f"{phase} {self.rule} after_epochs={self.after_epochs} {name}={getattr(self, name)}"
        return said if self.compares == MEASURES[0] else f"{said} measure={self.compares}"

    def collapsed(self, phase: str, name: str) -> str:
        """By which setting of ``collapse`` a trial stops."""
        value = getattr(self.collapse, name)
        told = f"{phase} collapse {name}={value}"
        return told if name == "not_finite" else f"{told} after_epochs={self.after_epochs}"


class Peer(NamedTuple):
    """A trial that others are compared with."""

    number: int  # its place among them, the same whenever it is asked
    curve: Curve
    ended: Literal["done", "pruned"] | None = None  # None: it runs, or was stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """That a trial was given up, and what that was decided from. Written once, with its result.

    ``by`` are the settings of the rule. ``peers`` are the values of the others after ``epoch``.
    """

    by: str
    why: str
    epoch: int
    value: float | None = None  # of what was compared, or of what collapsed
    peers: Mapping[str, float] = field(default_factory=dict)
    curve: Curve = field(default_factory=dict)

    def to_json(self) -> str:
        """``from_json`` reads it back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Pruned:
        """Raises ValueError."""
        value = json.loads(text)
        curve = {int(epoch): value for epoch, value in value.pop("curve").items()}
        return cls(curve=curve, **value)


def compare(
    stop: Stop,
    phase: str,
    epochs: int,
    number: int,
    curve: Curve,
    peers: Mapping[str, Peer],
) -> Pruned | None:
    """What a rule says of a trial after the last epoch of its curve; None: it goes on.

    Args:
        epochs: of the whole trial.
        number: its place among its peers, which Hyperband takes the first comparison from.
        peers: by id; those that have no value at this epoch may be among them.
    """
    epoch = max(curve, default=0)
    if stop.rule == "none" or not stop.after_epochs <= epoch < epochs:
        return None
    if not _asked(stop, epochs, number, curve, peers.values()):
        return None
    others = {p: peer.curve[epoch] for p, peer in peers.items() if epoch in peer.curve}
    said = f"{stop.rule} after epoch {epoch}: {stop.compares} {curve[epoch]:.4f}"
    if stop.rule == "median":
        done = [p.curve[epoch] for p in peers.values() if p.ended == "done" and epoch in p.curve]
        best = max(curve.values())
        so_far = "" if best == curve[epoch] else f" (at best {best:.4f} before)"
        said += f"{so_far} against {statistics.median(done):.4f}, the median of {len(done)} done"
    else:
        said += f", not among the best 1/{stop.reduction_factor} of those that came as far"
    return Pruned(
        by=stop.compared(phase),
        why=said,
        epoch=epoch,
        value=curve[epoch],
        peers=others,
        curve=curve,
    )


def _asked(stop: Stop, epochs: int, number: int, curve: Curve, peers: Iterable[Peer]) -> bool:
    """Whether Optuna's pruner prunes a trial, in a study that is told everybody's curve.

    Each curve is told epoch by epoch as if it came now: that is where Optuna notes how far a trial
    has been promoted.
    """
    import optuna

    by_number = {peer.number: peer for peer in peers}
    assert number not in by_number, "a trial among its own peers"
    with quiet():
        study = optuna.create_study(
            study_name="nas_sweeps",  # it decides, with the number, the bracket: in all cells alike
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(0),
            pruner=_pruner(stop, epochs),
        )
        asked = {}
        for each in range(max(number, *by_number, 0) + 1):
            if each == number or each in by_number:
                asked[each] = study.ask()
            else:  # whoever is not there keeps his number
                study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
        for each, peer in by_number.items():
            there = {epoch: value for epoch, value in peer.curve.items() if epoch <= max(curve)}
            _tell(asked[each], there)
            if peer.ended == "done":
                study.tell(asked[each], 0.0)  # what it came to in the end is not compared
            elif peer.ended == "pruned":
                study.tell(asked[each], state=optuna.trial.TrialState.PRUNED)
        return _tell(asked[number], curve)


def _tell(trial: optuna.trial.Trial, curve: Curve) -> bool:
    """Whether it would be pruned after the last epoch."""
    prunes = False
    for epoch, value in sorted(curve.items()):
        trial.report(value, epoch)
        prunes = trial.should_prune()
    return prunes


def _pruner(stop: Stop, epochs: int) -> optuna.pruners.BasePruner:
    from optuna import pruners

    first, factor = stop.after_epochs, stop.reduction_factor
    if stop.rule == "median":
        return pruners.MedianPruner(n_startup_trials=stop.startup, n_warmup_steps=first)
    if stop.rule == "asha":
        return pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)
    return pruners.HyperbandPruner(min_resource=first, max_resource=epochs, reduction_factor=factor)


def collapsed(stop: Stop, phase: str, row: Mapping[str, Any]) -> Pruned | None:
    """What the limits of ``collapse`` say of a search after an epoch; None: it goes on.

    Args:
        row: of the epoch, as the table of epochs has it.
    """
    epoch, limits = row["epoch"], stop.collapse
    if epoch < stop.after_epochs:
        return None
    skips, most = row.get("num_skip_normal"), limits.skip_connections
    if most is not None and skips is not None and skips > most:
        why = f"skip connections in the normal cell: {skips}, more than {most}"
        return _collapsed(stop, phase, "skip_connections", epoch, why, skips)
    entropies = [row.get(f"alpha_entropy_{cell}") for cell in ("normal", "reduce")]
    known = [entropy for entropy in entropies if entropy is not None]
    least = limits.alpha_entropy
    if least is not None and known and max(known) < least:
        why = f"alpha's entropy is {max(known):.4g} nats at most, less than {least:g}"
        return _collapsed(stop, phase, "alpha_entropy", epoch, why, max(known))
    return None


def diverged(stop: Stop, phase: str, epochs_done: int, error: Exception) -> Pruned | None:
    """What ``collapse.not_finite`` says of a loss that is no longer finite; None: nothing."""
    if not stop.collapse.not_finite:
        return None
    return _collapsed(stop, phase, "not_finite", epochs_done, f"in the next, {error}", None)


def _collapsed(
    stop: Stop, phase: str, name: str, epoch: int, why: str, value: float | None
) -> Pruned:
    by = stop.collapsed(phase, name)
    return Pruned(by=by, why=f"collapse after epoch {epoch}: {why}", epoch=epoch, value=value)
