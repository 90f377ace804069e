"""Classes equally likely, images drawn with replacement."""

from dataclasses import dataclass

from nas_sweeps.data.samplers import Sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class WithReplacement(Sampler):
    def order(self, labels_N, generator):
        counts_K = labels_N.bincount()
        return (1 / counts_K[labels_N]).multinomial(len(labels_N), True, generator=generator)
