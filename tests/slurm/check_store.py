"""What a store must look like after all that was done to its run.

    python -m tests.slurm.check_store STORE [--clean | --stopped] [HOST ...]

Every trial is done once, and no epoch that was finished was lost. ``--clean``: the run was always
stopped cleanly, so every epoch was computed once. ``--stopped``: it was, and is not done yet. Each
host named had a part in it.
"""

from __future__ import annotations

import sys

import nas_sweeps as ns


def check(store: str, *hosts: str, clean: bool = False, stopped: bool = False) -> None:
    frames = ns.load(store)
    attempts = frames.attempts.sort_values(["trial_id", "attempt"])
    print(attempts[["trial_id", "attempt", "state", "epochs_from", "epochs_done", "host"]])
    ends = {"done", "stopped"} if stopped else {"done"}
    for trial_id, tries in attempts.groupby("trial_id"):
        assert list(tries.state).count("done") <= 1, f"{trial_id}: done twice"
        assert tries.state.iloc[-1] in ends, f"{trial_id}: ended as {tries.state.iloc[-1]}"
        if clean or stopped:
            assert set(tries.state) <= {"done", "stopped"}, f"{trial_id}: not stopped cleanly"
            went_on = tries.epochs_from.iloc[1:].to_list()
            assert went_on == tries.epochs_done.iloc[:-1].to_list(), f"{trial_id}: an epoch twice"
    assert set(hosts) <= set(attempts.host), "a node did nothing"
    if stopped:
        assert "stopped" in set(attempts.state), "nothing ran when it was stopped"
        return
    assert set(frames.trials.state) == {"done"}
    rows = frames.epochs.groupby("trial_id").epoch
    assert (rows.count() == rows.nunique()).all(), "rows of an epoch twice"
    print(f"{store}: {len(frames.trials)} trials done once, in {len(attempts)} attempts")


if __name__ == "__main__":
    named = [word for word in sys.argv[1:] if not word.startswith("--")]
    check(*named, clean="--clean" in sys.argv, stopped="--stopped" in sys.argv)
