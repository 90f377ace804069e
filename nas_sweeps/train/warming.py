"""Kernels of a run compiled before its first step, where it has any to compile."""

from __future__ import annotations

from collections.abc import Callable

from nas_sweeps.train.common import EVAL_BATCH, nothing
from nas_sweeps.train.retrain import RetrainRun
from nas_sweeps.train.search import SearchRun


def warm_up_run(
    run: object, tell: Callable[[str], None], between: Callable[[], None] = nothing
) -> None:
    """Compile the kernels of what a run trains and tests; nothing in other forms.

    Raises:
        RuntimeError: a kernel does not compile.
    """
    if not isinstance(run, SearchRun | RetrainRun):
        return
    net = run.model.supernet if isinstance(run, SearchRun) else run.network
    if net.form != "triton":
        return
    from nas_sweeps.space.lanes.ready import Need, warm_up  # Triton is imported where it is used

    channels, height, width = run.bundle.images.shape[1:]
    need = Need(
        net=net,
        batch=run.recipe.batch_size,
        tested=min(EVAL_BATCH[run.device.type], len(run.bundle.test_labels)),
        image=(channels, height, width),
        kind=run.recipe.precision,
        drop_path=isinstance(run, RetrainRun) and run.recipe.drop_path > 0,
    )
    warm_up([need], run.device, tell=tell, between=between)
