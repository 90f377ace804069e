"""What waits for trials that run already starts after them in an estimate too."""

from __future__ import annotations

from nas_sweeps.cost.forecast import forecast
from nas_sweeps.cost.rates import Rates
from nas_sweeps.grid import Grid, plan
from nas_sweeps.schedule import Scheduler

KNOB = {"darts": {"arch_lr": {"low": 1e-4, "high": 1e-2}}}


def test_proposals_wait_for_those_that_run() -> None:
    tree = {
        "data": {"dataset": "digits"},
        "search": {"methods": [KNOB], "distributions": ["balance"]},
        "tune": {"trials": 4, "startup": 4, "parallel": 2},
    }
    scheduler = Scheduler(plan(Grid.from_dict(tree)))
    tasks = [task for _ in range(3) if (task := scheduler.next_task()) is not None]
    assert len(tasks) == 2
    running = {task.trial.trial_id: ("search", 100.0) for task in tasks}
    found = forecast(scheduler, Rates(), {}, running)
    # The running two, proposals 2 and 3, the winner of all four, and its retrain.
    assert [task.parents for task in found.tasks] == [(), (), (0,), (0, 1), (0, 1, 2, 3), (4,)]


def test_so_do_retrains_of_a_search_that_runs() -> None:
    tree = {
        "data": {"dataset": "digits"},
        "search": {"methods": ["darts"], "distributions": ["balance"]},
    }
    scheduler = Scheduler(plan(Grid.from_dict(tree)))
    task = scheduler.next_task()
    assert task is not None
    found = forecast(scheduler, Rates(), {}, {task.trial.trial_id: ("search", 9.0)})
    assert [task.parents for task in found.tasks] == [(), (0,)]
