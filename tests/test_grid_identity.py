"""Golden identities: stores that people have must stay readable.

If a test here fails, finished trials would silently be computed again. Either the change was
not meant to alter what a trial is, and is to be undone, or SCHEMA_VERSION goes up.
"""

from __future__ import annotations

from nas_sweeps.space.published import published
from nas_sweeps.trial import (
    Data,
    Distribution,
    MethodSpec,
    Pretrain,
    RetrainRecipe,
    RetrainTrial,
    SearchRecipe,
    SearchTrial,
    trial_from_json,
)

DIGITS = Data(dataset="digits", label="digits", image_size=16)
SEARCH = SearchTrial(
    data=DIGITS,
    distribution=Distribution(kind="exp", mu=0.1),
    method=MethodSpec(name="darts", knobs=(("arch_lr", 3e-4), ("order", "first"))),
    recipe=SearchRecipe(),
    seed=0,
)
RETRAIN = RetrainTrial(
    data=DIGITS,
    distribution=Distribution(kind="balance"),
    genotype=published("DARTS_V2"),
    recipe=RetrainRecipe(pretrain=Pretrain()),
    seed=1,
)


def test_fixed_specs_keep_their_ids() -> None:
    assert SEARCH.trial_id == "s-fb178769b3878306"
    assert RETRAIN.trial_id == "r-2a70c158ae03b791"


def test_specs_survive_json_with_their_ids() -> None:
    for trial in (SEARCH, RETRAIN):
        again = trial_from_json(trial.to_json())
        assert again == trial
        assert again.trial_id == trial.trial_id
