"""What every phase promises planning, scheduling and the worker, whoever wrote it."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import pytest

from nas_sweeps.data.splits import DataSplits, prepare
from nas_sweeps.grid import Entry, Grid, GridError, plan
from nas_sweeps.phases import PHASES, phase_named
from nas_sweeps.testing.tiny import CPU, assert_goes_on, finish, heavy_imports
from nas_sweeps.train.common import Run
from nas_sweeps.trial import DataPaths, Trial, trial_from_json

TINY = {"channels": 2, "layers": 3, "epochs": 2, "batch_size": 16}
GRID: dict[str, Any] = {
    "data": {"dataset": "digits", "image_size": 8, "n_max": 14, "test_n_max": 4},
    "search": {"methods": ["darts"], "distributions": [{"exp": 0.25}], "recipe": TINY},
    "retrain": {"recipe": TINY},
}


class TinyStudy:
    """A grid of a phase and those before it, of which every trial takes a second or so."""

    def __init__(self, name: str, **section: Any) -> None:
        self.tree = GRID | {name: GRID.get(name, {}) | section}
        self.grid = Grid.from_dict(self.tree)
        self.planned = plan(self.grid)
        self.by_key = {entry.key: entry for entry in self.planned}
        self.first = self.planned.by_phase[name][0]
        self.ended: dict[str, Run] = {}  # runs after their last epoch, by trial id

    def trial(self, entry: Entry) -> Trial:
        """What an entry becomes, after what it waits for has run."""
        if isinstance(entry, Trial):
            return entry
        parents = [self.trial(self.by_key[key]) for key in entry.parents[:1]]
        for parent in parents:
            if parent.trial_id not in self.ended:
                self.ended[parent.trial_id] = self.run(parent)
                finish(self.ended[parent.trial_id])
            return entry.resolve(self.ended[parent.trial_id].outcome().genotype, parent)
        assert entry.genotype is not None, "without parents and without a genotype"
        return entry.resolve(entry.genotype)

    def run(self, trial: Trial) -> Run:
        """Before its first epoch."""

        def images() -> DataSplits:
            return prepare(trial.data, trial.distribution, DataPaths(), CPU)

        def state_of(trial_id: str) -> dict[str, Any]:
            return self.ended[trial_id].state_dict()

        return phase_named(trial.phase).make_run(trial, images, CPU, state_of)


@cache
def _study(name: str, section: tuple[tuple[str, Any], ...]) -> TinyStudy:
    return TinyStudy(name, **dict(section))


class PhaseContract:
    """Subclass it, parametrised by ``name``.

    Attributes:
        section: settings of the phase's section that make its trials short. The phases before it
            are small already.
    """

    section: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def study(self, name: str) -> TinyStudy:
        return _study(name, tuple(self.section.items()))

    def test_its_names_are_its_own(self, name: str) -> None:
        assert phase_named(name).name == name
        prefixes = [phase_named(other).prefix for other in PHASES.names()]
        assert prefixes.count(phase_named(name).prefix) == 1
        assert phase_named(name).prefix.isalpha()
        assert phase_named(name).prefix.islower()

    def test_an_unknown_setting_of_its_section_is_one_clear_mistake(
        self, name: str, study: TinyStudy
    ) -> None:
        wrong = study.tree | {name: study.tree[name] | {"no_such": 1}}
        with pytest.raises(GridError) as refused:
            Grid.from_dict(wrong)
        (said,) = refused.value.args
        assert f"{name}.no_such: unknown setting 'no_such'; choose from" in said

    def test_its_section_asks_for_resources(self, name: str, study: TinyStudy) -> None:
        asked = study.tree | {name: study.tree[name] | {"resources": {"cpus": 2}}}
        assert Grid.from_dict(asked).resources(name).cpus == 2
        assert list(plan(Grid.from_dict(asked))) == list(study.planned), "no part of an identity"

    def test_a_resolved_grid_plans_the_same(self, study: TinyStudy) -> None:
        assert list(plan(Grid.from_json(study.grid.to_json()))) == list(study.planned)

    def test_it_waits_for_what_the_phase_before_it_plans(self, name: str, study: TinyStudy) -> None:
        after, planned = phase_named(name).after, study.planned.by_phase[name]
        before = {entry.key for entry in study.planned.by_phase[after]} if after else set()
        assert planned
        assert {entry.phase for entry in planned} == {name}
        assert {key for entry in planned for key in entry.parents} <= before
        assert len({entry.key for entry in planned}) == len(planned)

    def test_a_trial_survives_json_with_its_id(self, name: str, study: TinyStudy) -> None:
        trial = study.trial(study.first)
        assert type(trial) is phase_named(name).spec
        assert trial.trial_id.startswith(f"{phase_named(name).prefix}-")
        again = trial_from_json(trial.to_json())
        assert again == trial
        assert again.trial_id == trial.trial_id

    def test_a_trial_says_how_it_is_called(self, name: str, study: TinyStudy) -> None:
        assert phase_named(name).labels(study.first).method == "darts"

    def test_its_epochs_are_those_that_it_foretells(self, name: str, study: TinyStudy) -> None:
        run = study.run(study.trial(study.first))
        stages = phase_named(name).stages(study.first)
        rows = finish(run)
        assert [row["stage"] for row in rows] == [stage for stage, n in stages for _ in range(n)]
        assert run.epochs_total == len(rows)
        assert run.outcome().metrics["accuracy_balanced"] is not None

    def test_a_run_goes_on_from_a_checkpoint(self, study: TinyStudy) -> None:
        trial = study.trial(study.first)
        assert_goes_on(*(study.run(trial) for _ in range(3)))

    def test_planning_does_not_import_torch(self, name: str, study: TinyStudy) -> None:
        grid = f"nas_sweeps.Grid.from_dict({study.tree!r})"
        planned = f"import nas_sweeps, {phase_named(name).__module__}\nnas_sweeps.plan({grid})"
        assert heavy_imports(planned) == []
