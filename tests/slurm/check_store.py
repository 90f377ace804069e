"""What a store must look like after all that tests/slurm/try.sh has done to its run.

python -m tests.slurm.check_store STORE [HOST ...]: every trial is done once. With hosts: the run
was always stopped cleanly, so every epoch was computed once, and each host had a part in it.
"""

from __future__ import annotations

import sys

import nas_sweeps as ns


def check(store: str, *hosts: str) -> None:
    frames = ns.load(store)
    attempts = frames.attempts.sort_values(["trial_id", "attempt"])
    print(attempts[["trial_id", "attempt", "state", "epochs_from", "epochs_done", "host"]])
    assert len(frames.trials) == 12
    assert set(frames.trials.state) == {"done"}
    for trial_id, tries in attempts.groupby("trial_id"):
        assert list(tries.state).count("done") == 1, trial_id
        assert tries.state.iloc[-1] == "done", trial_id
        went_on = tries.epochs_from.iloc[1:].to_list()
        if hosts:
            assert went_on == tries.epochs_done.iloc[:-1].to_list(), f"{trial_id}: an epoch twice"
    assert set(hosts) <= set(attempts.host), "a node did nothing"
    print(f"{store}: 12 trials done once, in {len(attempts)} attempts")


if __name__ == "__main__":
    check(*sys.argv[1:])
