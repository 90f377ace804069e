"""How trials, methods, distributions and pre-training are called, in words and in columns.

One wording for terminals, logs, tables, figures and the page. Values may come from a spec or from
a table, where what is missing is None or NaN. Pure Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

UNKNOWN = "unknown"  # of a trial whose own files cannot be read
NO_PRETRAINING = "none"
Headline = Literal["accuracy_balanced", "accuracy_macro", "accuracy_long_tailed"]
# What a grid may take for its headline, as lines and as panels call it: what every epoch's row has.
HEADLINES: dict[str, tuple[str, str]] = {
    "accuracy_balanced": ("bal-acc", "balanced test set"),
    "accuracy_macro": ("macro", "macro recall"),  # the balanced accuracy of uneven test sets
    "accuracy_long_tailed": ("lt-acc", "long-tailed test set"),
}
HEADLINE: Headline = "accuracy_balanced"  # where nobody has chosen
TUNED = "tuned="  # what the variant of a study's winner begins with; then: of how many proposals
DISTRIBUTION = ("distribution", "mu", "total", "n_max")  # the columns that say which one it is


def distribution_name(kind: Any, mu: Any = None, total: Any = None, n_max: Any = None) -> str:
    """``balance``, ``exp mu=0.1``, ``uniform 20431``, ``natural``, ``natural n_max=1000``.

    The arguments are the columns ``DISTRIBUTION``; mu is the tail-to-head ratio of counts.
    """
    if _missing(kind):
        return UNKNOWN
    if not _missing(total):
        return f"{kind} {int(total)}"
    if not _missing(n_max):
        return f"{kind} n_max={int(n_max)}"
    return str(kind) if _missing(mu) else f"{kind} mu={mu:g}"


def pretrain_column(then: str | None) -> str:
    """The value of the column ``pretrain``: ``none``, ``barlow_finetune`` or ``barlow_linear``.

    ``then`` is what follows Barlow Twins: ``finetune`` or ``linear``; None without pre-training.
    """
    return NO_PRETRAINING if then is None else f"barlow_{then}"


def method_name(
    name: Any,
    variant: Any = "",
    pretrain: Any = NO_PRETRAINING,
    recipe: Any = "",
    search_epoch: Any = None,
) -> str:
    """``darts``, ``darts (order=second)``, ``ssf_nas + barlow``, ``ssf_nas + barlow (strong)``.

    Args:
        name: of the method, or of several that found one genotype.
        variant: its knobs that are not the default, as ``methods.variant`` has them.
        pretrain: as in the column of that name; fine-tuning goes without saying.
        recipe: the name that a grid gives to the recipe of a retraining, if it gives one.
        search_epoch: after which the search had the genotype; None for its end.
    """
    called = UNKNOWN if _missing(name) else str(name)
    called += f" ({variant})" if variant and not _missing(variant) else ""
    called += "" if _missing(search_epoch) else f" epoch {search_epoch}"
    if not _missing(pretrain) and pretrain not in ("", NO_PRETRAINING):
        called += f" + {pretrain.removesuffix('_finetune').replace('_', ' ')}"
    return called + (f" ({recipe})" if recipe and not _missing(recipe) else "")


def trial_name(
    phase: Any, method: str, distribution: str, seed: Any, before: Iterable[Any] = ()
) -> str:
    """``search darts exp mu=0.1 s0``: the parts are those that the functions above give.

    Args:
        before: seeds of the trials that it goes on from: ``retrain darts exp mu=0.1 s0 of s1``.
    """
    parts = [str(phase), method, distribution, *([] if _missing(seed) else [f"s{seed}"])]
    found = joined(f"s{of}" for of in before if not _missing(of))
    return " ".join([*parts, *(["of", found] if found else [])])


def values_text(values: Iterable[tuple[str, Any]]) -> str:
    """What a study chose: ``zero_one=l1, zero_one_weight=3.5765``."""
    return ", ".join(
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in values
    )


def joined(names: Iterable[str]) -> str:
    """Several methods that found one genotype: ``darts+ssf_nas``."""
    return "+".join(dict.fromkeys(names))


def accuracy_text(row: Mapping[str, Any], headline: str = HEADLINE) -> str:
    """The headline's accuracy in percent; as many spaces where there was no test."""
    accuracy = row.get(headline)
    return " " * 13 if accuracy is None else f"{HEADLINES[headline][0]:<7} {100 * accuracy:5.1f}"


def _missing(value: Any) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)  # NaN alone is not equal to itself
    except TypeError:  # pandas' NA is neither equal nor unequal
        return True
