"""What a phase of a study says of itself. No torch.

A study is a small graph: a search finds a genotype, a retraining goes on from it, and a phase of
yours may go on from that. A phase is one object that says what its trials are, which of them a grid
asks for, and how they are computed; scheduling, storing, retrying and counting ask it, and know no
phase by name. A package of yours offers one through its entry points::

    [project.entry-points."nas_sweeps.phases"]
    finetune = "their_package:Finetune"
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from nas_sweeps.names import NO_PRETRAINING, UNKNOWN, joined
from nas_sweeps.registry import Registry

if TYPE_CHECKING:
    import torch

    from nas_sweeps.data.splits import DataSplits
    from nas_sweeps.grid import Entry, Grid, Slot
    from nas_sweeps.grid.sections import PhaseSection
    from nas_sweeps.space.genotype import Genotype
    from nas_sweeps.train.common import Run
    from nas_sweeps.trial import Origin, Trial


class Labels(NamedTuple):
    """What people tell trials of one phase apart by: columns of the trials table."""

    method: str
    variant: str = ""
    pretrain: str = NO_PRETRAINING
    recipe: str = ""  # the name that a grid gives it
    search_epoch: int | str | None = None  # of a genotype along the way; several are joined


class Phase:
    """What a phase says of itself. It has no state: one object serves a process.

    Attributes:
        spec: the class of its trials, a frozen dataclass below ``Trial``. The default of its field
            ``phase`` is the phase's name, which is also that of its section in a grid file.
        section: its settings, a pydantic model below ``nas_sweeps.grid.sections.PhaseSection``. A
            grid without the section has no trial of the phase; ``search`` and ``retrain`` are
            always there.
        after: the phase whose trials it goes on from; None: it is a beginning.
        networks: whether its runs compute networks: then a device's arithmetic is checked before.
    """

    spec: ClassVar[type[Trial]]
    section: ClassVar[type[PhaseSection]]
    after: ClassVar[str | None] = None
    networks: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The phase's name, from its spec."""
        return str(self.spec.__dataclass_fields__["phase"].default)

    @property
    def prefix(self) -> str:
        """What its trials' ids begin with."""
        return self.spec.prefix

    def slots(self, section: Any, grid: Grid, before: Sequence[Entry]) -> Iterable[Entry]:
        """What a grid asks for, in the order in which it is to start.

        Args:
            section: the grid's, of this phase.
            before: what is planned of the phase ``after``, and leads on.

        Returns:
            Trials that are known already, and slots for those that wait for what others will find:
            their ``parents`` are keys of entries in ``before``, or of earlier ones of this phase.
        """
        raise NotImplementedError

    def trial(self, slot: Slot, genotype: Genotype, parent: Trial | None, **fields: Any) -> Trial:
        """The trial that a slot becomes.

        Args:
            genotype: that its winning parent found, or the slot's own.
            parent: the winner: of the parents that are done, the best on the validation half. None
                for a slot without parents.
            fields: of the spec, beside those that a slot has.
        """
        spec: Any = self.spec  # its fields are this phase's own
        return spec(  # type: ignore[no-any-return]
            data=slot.data,
            distribution=slot.distribution,
            genotype=genotype,
            recipe=slot.recipe,
            seed=slot.seed,
            **fields,
        )

    def stages(self, entry: Entry) -> Sequence[tuple[str, int]]:
        """The stretches of epochs that a trial goes through, by the name that their rows have."""
        return ((self.name, entry.recipe.epochs),)

    def peers(self, entry: Entry) -> Hashable:
        """With whom a stop rule compares a trial: with those of an equal value here."""
        return entry.distribution, entry.recipe

    def spared(self, entry: Entry) -> bool:
        """Whether no stop rule compares it, though others may be compared with it."""
        return bool(getattr(entry, "spared", False))

    def labels(self, entry: Entry, origins: Iterable[Origin] = ()) -> Labels:
        """How a planned or running trial is called.

        Args:
            origins: who asked for it, where that is known; a slot knows its own.
        """
        asked = list(origins) or ([entry.origin] if entry.origin else [])
        method = joined(origin.method for origin in asked) or UNKNOWN
        pretrained = getattr(entry.recipe, "pretrained", NO_PRETRAINING)
        recipe = joined(origin.recipe for origin in asked if origin.recipe)
        epochs = sorted({origin.search_epoch for origin in asked if origin.search_epoch})
        epoch = epochs[0] if len(epochs) == 1 else "+".join(map(str, epochs)) or None
        return Labels(method, asked[0].variant if asked else "", pretrained, recipe, epoch)

    def make_run(
        self,
        trial: Any,
        images: Callable[[], DataSplits],
        device: torch.device,
        state_of: Callable[[str], dict[str, Any]],
    ) -> Run:
        """A trial's run, before its first epoch.

        Args:
            images: those that it trains and tests on.
            state_of: what the run of a trial that is done would have a checkpoint hold
                (``Run.state_dict``), by the trial's id. Raises ValueError where it is gone.
        """
        raise NotImplementedError


PHASES: Registry[Phase] = Registry(
    "phase",
    Phase,
    "nas_sweeps.phases",
    home=("nas_sweeps.phases.search", "nas_sweeps.phases.retrain"),
)
register = PHASES.register


@cache
def phase_named(name: str) -> Phase:
    """Raises ``ValueError`` naming the choices."""
    return PHASES.build(name)


def depth(name: str) -> int:
    """How many phases come before it. Raises ``ValueError`` for one that comes after itself."""
    lineage = [name]
    while (before := phase_named(lineage[-1]).after) is not None:
        if before in lineage:
            raise ValueError(f"phase '{name}' comes after itself: {' after '.join(lineage)}")
        lineage.append(before)
    return len(lineage) - 1


def in_order() -> tuple[str, ...]:
    """Every phase, none before the one that it goes on from.

    Raises:
        ValueError: two of them have one prefix, or one comes after itself.
    """
    owners: dict[str, str] = {}
    for name in PHASES.names():
        if (owner := owners.setdefault(phase_named(name).prefix, name)) != name:
            raise ValueError(
                f"phases '{owner}' and '{name}' both begin ids with '{phase_named(name).prefix}-'; "
                "change the prefix of one of their specs, or uninstall it"
            )
    return tuple(sorted(owners.values(), key=lambda name: (depth(name), name)))


def phase_of_id(trial_id: str) -> str:
    """The name of the phase whose prefix an id has; ``unknown`` where no such phase is known."""
    prefix = trial_id.partition("-")[0]
    return next((name for name in in_order() if phase_named(name).prefix == prefix), UNKNOWN)
