"""Optuna's own plots of a study, in the style of the page: what was tried, and what mattered."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from nas_sweeps.names import values_text
from nas_sweeps.report import style
from nas_sweeps.report.figures import TUNING, FigureEntry
from nas_sweeps.report.points import SIZES
from nas_sweeps.report.studies import TunedCell
from nas_sweeps.report.tables import is_fraction, spoken
from nas_sweeps.tuning.study import quiet

if TYPE_CHECKING:
    import optuna

SIZE = (style.WIDTH, style.PANEL_HEIGHT)
FEW = 4  # completed proposals below which nobody can tell what mattered
_OPTUNAS = "ggplot"  # the style that its plots ask matplotlib for
_TRIED, _BEST, _DEFAULT = 0, 1, 2  # colours
_DEFAULTS = "the defaults"


def tuning_figures(cell: TunedCell, study: optuna.Study) -> list[FigureEntry]:
    """Of one study: its history, or where it has two objectives the Pareto front; what mattered;
    and a slice through every parameter. Their data are the study's trials."""
    named = f"{TUNING}{cell.study.name}"
    names = _names(study)
    tried = _tried(study)
    some = "a proposal with a result"
    lead = FigureEntry(
        name=f"{named}-history",
        title=f"{cell.name}: history",
        caption="Every proposal in its order, and the best so far; the first is the defaults."
        + _pruned_text(study),
        needs=some,
        data=lambda frames: tried,
        draw=lambda data: _history(study),
        describe=lambda data: _best_text(study),
    )
    if len(names) > 1:
        lead = FigureEntry(
            name=f"{named}-front",
            title=f"{cell.name}: Pareto front",
            caption="Every proposal by both objectives; none is better in both than one that is on "
            "the front.",
            needs=some,
            data=lambda frames: tried,
            draw=lambda data: _front(study),
            describe=lambda data: _best_text(study),
        )
    several = len(names) > 1
    importances = [
        FigureEntry(
            name=f"{named}-importance" + (f"-{i + 1}" if several else ""),
            title=f"{cell.name}: what mattered" + (f", {_bare(name)}" if several else ""),
            caption="Importance of each parameter by PED-ANOVA (Watanabe et al., 2023), as Optuna "
            f"computes it from {len(_complete(study))} proposals: so few allow a guess, no more.",
            needs=f"{FEW} proposals with results that differ",
            data=lambda frames, i=i: _importance(study, i),  # type: ignore[misc]
            draw=lambda data, i=i: _importances(study, i),  # type: ignore[misc]
            describe=_importance_text,
        )
        for i, name in enumerate(names)
    ]
    slices = [
        FigureEntry(
            name=f"{named}-slices" + (f"-{i + 1}" if several else ""),
            title=f"{cell.name}: slices" + (f", {_bare(name)}" if several else ""),
            caption="A point per proposal, over each parameter; later ones are darker.",
            needs="a proposal from the ranges with a result",
            data=lambda frames: tried if _parameters(study) else tried.iloc[:0],
            draw=lambda data, i=i: _slices(study, i),  # type: ignore[misc]
            describe=lambda data: _best_text(study),
            wide=len(_parameters(study)) > 2,
        )
        for i, name in enumerate(names)
    ]
    return [lead, *importances, *slices]


def _names(study: optuna.Study) -> list[str]:
    """The objectives."""
    return list(study.metric_names or ())


def _said(objective: str) -> str:
    """An objective as an axis calls it."""
    return _bare(objective) + (" (%)" if is_fraction(objective) else "")


def _bare(objective: str) -> str:
    """``validation accuracy``, ``parameters``."""
    if objective.startswith("accuracy_"):
        return f"{spoken(objective)} accuracy"
    return SIZES.get(objective, spoken(objective))


def _complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    import optuna

    return study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))


def _pruned_text(study: optuna.Study) -> str:
    """Which proposals have no point because a stop rule gave them up; nothing where none was."""
    import optuna

    pruned = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.PRUNED,))
    return f" {len(pruned)} were pruned by a stop rule and have no point." if pruned else ""


def _tried(study: optuna.Study) -> pd.DataFrame:
    """A row per proposal with its state, what it came to and its parameters; empty where none has
    a result."""
    names = _names(study)
    rows = [
        {"number": trial.number, "state": trial.state.name.lower()}
        | dict(zip(names, trial.values or [np.nan] * len(names), strict=True))
        | trial.params
        for trial in study.get_trials(deepcopy=False)
    ]
    return pd.DataFrame(rows if _complete(study) else [])


def _importance(study: optuna.Study, objective: int) -> pd.DataFrame:
    """``importance`` of each ``parameter`` for an objective; empty where nobody can tell."""
    from optuna.importance import get_param_importances

    done = _complete(study)
    if len(done) < FEW or len({trial.values[objective] for trial in done}) < 2:
        return pd.DataFrame()
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of which way a target is better: see there
        found = get_param_importances(study, target=_target(study, objective))
    if not all(map(isfinite, found.values())):
        return pd.DataFrame()
    return pd.DataFrame({"parameter": list(found), "importance": list(found.values())})


def _target(study: optuna.Study, objective: int) -> Callable[[Any], float] | None:
    """What importance is of. PED-ANOVA takes a target for better where it is lower; without one it
    asks the study, which may have one objective then."""
    if len(study.directions) == 1:
        return None
    sign = -1.0 if study.directions[objective].name == "MAXIMIZE" else 1.0
    return lambda trial: sign * float(trial.values[objective])


def _best_text(study: optuna.Study) -> str:
    names = _names(study)
    best = study.best_trials if len(names) > 1 else [study.best_trial]
    return "; ".join(
        f"proposal {trial.number}: "
        + ", ".join(f"{name} {value:.4g}" for name, value in zip(names, trial.values, strict=True))
        + f" with {values_text(trial.params.items())}"
        for trial in best
    )


def _importance_text(data: pd.DataFrame) -> str:
    shares = zip(data["parameter"], data["importance"], strict=True)
    return "; ".join(f"{parameter}: {share:.2f}" for parameter, share in shares)


def _drawn(plot: Callable[[], Any], size: tuple[float, float]) -> Figure:
    """What a plot of Optuna's draws in the page's style, on a figure that pyplot forgets."""
    with style.named(_OPTUNAS), quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        axes = plot()
        figure: Figure = np.ravel(axes)[0].figure
        plt.close(figure)
    figure.set_layout_engine("constrained")
    figure.set_size_inches(*size)
    figure.suptitle("")
    for each in figure.axes:
        for place in ("left", "center"):
            each.set_title("", loc=place)
        if (box := each.get_legend()) is not None:
            box.remove()
    return figure


def _percent(axes: Axes, objective: str, along: Literal["x", "y"] = "y") -> None:
    if is_fraction(objective):
        style.percent_axis(axes, along)


@style.styled
def _history(study: optuna.Study) -> Figure:
    from optuna.visualization.matplotlib import plot_optimization_history

    (name,) = _names(study)
    figure = _drawn(lambda: plot_optimization_history(study, target_name=_said(name)), SIZE)
    (axes,) = figure.axes
    points, *_ = (c for c in axes.collections if isinstance(c, PathCollection))
    points.set(color=style.color(_TRIED), label="a proposal")
    (line,) = axes.get_lines()
    line.set(color=style.color(_BEST), alpha=1, label="the best so far", drawstyle="steps-post")
    first = study.get_trials(deepcopy=False)[0]
    if first.values:
        axes.axhline(first.values[0], **_DEFAULT_LINE, label=_DEFAULTS)
    axes.set(xlabel="proposal", ylabel=_said(name))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _percent(axes, name)
    style.legend(figure, [axes])
    return figure


_DEFAULT_LINE: dict[str, Any] = {
    "color": style.SOFT,
    "linestyle": (0, (2, 2)),
    "linewidth": 0.9,
    "zorder": 1,
}


@style.styled
def _front(study: optuna.Study) -> Figure:
    from optuna.visualization.matplotlib import plot_pareto_front

    names = _names(study)
    said = [_said(name) for name in names]
    figure = _drawn(lambda: plot_pareto_front(study, target_names=said), SIZE)
    (axes,) = figure.axes
    looks = {"Trial": (_TRIED, "a proposal"), "Best Trial": (_BEST, "on the Pareto front")}
    for points in axes.collections:
        code, called = looks[str(points.get_label())]
        points.set(color=style.color(code), label=called)
    _percent(axes, names[said.index(axes.get_xlabel())], "x")
    _percent(axes, names[said.index(axes.get_ylabel())])
    style.legend(figure, [axes])
    return figure


@style.styled
def _importances(study: optuna.Study, objective: int) -> Figure:
    from optuna.visualization.matplotlib import plot_param_importances

    target = _target(study, objective)
    figure = _drawn(lambda: plot_param_importances(study, target=target), SIZE)
    (axes,) = figure.axes
    for bar in axes.patches:
        bar.set(**style.bar(_TRIED))
    for text in axes.texts:
        text.set_text(f" {text.get_text()}")
    axes.set(xlabel="importance", ylabel="")
    axes.grid(False, axis="y")
    return figure


@style.styled
def _slices(study: optuna.Study, objective: int) -> Figure:
    from optuna.visualization.matplotlib import plot_slice

    name, parameters = _names(study)[objective], _parameters(study)
    figure = _drawn(
        lambda: plot_slice(
            study,
            parameters,
            target=lambda trial: trial.values[objective],
            target_name=_said(name),
        ),
        (max(style.WIDTH, 1.8 * len(parameters)), style.PANEL_HEIGHT),
    )
    panels = _without_colorbar(figure)
    for axes, parameter in zip(panels, parameters, strict=True):
        for points in list(axes.collections):
            _shade(points, len(study.get_trials(deepcopy=False)))
        _mark(axes, study, parameter, objective)
        _percent(axes, name)
        axes.set_xlabel(style.wrapped(parameter, 24))
        _few_ticks(axes)
    style.legend(figure, panels)
    return figure


def _parameters(study: optuna.Study) -> list[str]:
    return sorted({name for trial in _complete(study) for name in trial.params})


def _without_colorbar(figure: Figure) -> list[Axes]:
    for axes in figure.axes:
        for points in axes.collections:
            if points.colorbar is not None:
                points.colorbar.remove()
    return list(figure.axes)


def _shade(points: Any, proposals: int) -> None:
    """One colour, stronger with the number of the proposal, in the place of a map of colours:
    so they follow the theme of a page."""
    numbers = points.get_array()
    if numbers is None or not len(numbers):
        points.remove()  # of trials that break a constraint: there are none
        return
    points.set_array(None)
    shade = 0.25 + 0.75 * np.asarray(numbers, dtype=float) / max(1, proposals - 1)
    points.set(facecolor=style.color(_TRIED), edgecolor="none", alpha=shade)
    points.set_label("proposals (later darker)")


def _few_ticks(axes: Axes) -> None:
    """Powers of ten in figures, on a short axis their triples as well."""
    if axes.get_xscale() == "log":
        low, high = axes.get_xlim()
        subs = (1.0, 3.0) if high / low < 1000 else (1.0,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(NullLocator())


def _mark(axes: Axes, study: optuna.Study, parameter: str, objective: int) -> None:
    """Rings around the defaults and around the best proposal."""
    first = [trial for trial in _complete(study) if trial.number == 0]
    best = [study.best_trial] if len(_names(study)) == 1 else []
    for trials, code, called in ((first, _DEFAULT, _DEFAULTS), (best, _BEST, "the best")):
        for trial in trials:
            if parameter in trial.params:
                value = trial.params[parameter]
                axes.scatter(
                    [repr(value) if _is_choice(trial, parameter) else value],
                    [trial.values[objective]],
                    s=60 if code == _DEFAULT else 110,
                    facecolors="none",
                    edgecolors=style.color(code),
                    linewidths=1.5,
                    label=called,
                    clip_on=False,
                )


def _is_choice(trial: optuna.trial.FrozenTrial, parameter: str) -> bool:
    """Whether a parameter is of choices, which Optuna's plots call by their text."""
    import optuna

    return isinstance(trial.distributions[parameter], optuna.distributions.CategoricalDistribution)
