"""What every sampler promises the loops, whoever wrote it."""

from __future__ import annotations

import torch

from nas_sweeps.data.samplers import SAMPLERS
from nas_sweeps.testing.tiny import assert_goes_on, heavy_imports, tiny_retrain

LABELS = torch.tensor([0] * 17 + [2] * 9 + [1] * 5 + [3] * 2)[torch.arange(33) * 7 % 33]


def order(name: str, seed: int = 0) -> torch.Tensor:
    """One pass over 33 images of four classes."""
    return SAMPLERS.build(name).order(LABELS, torch.Generator().manual_seed(seed))


class SamplerContract:
    """Subclass it, parametrised by ``name``."""

    def test_a_pass_has_as_many_images_as_it_says(self, name: str) -> None:
        length = SAMPLERS.build(name).length(LABELS.bincount().tolist())
        for seed in range(5):
            positions = order(name, seed)
            assert positions.shape == (length,)
            assert positions.dtype == torch.int64
            assert ((positions >= 0) & (positions < len(LABELS))).all()

    def test_no_class_is_left_out_for_ever(self, name: str) -> None:
        seen = torch.cat([LABELS[order(name, seed)] for seed in range(5)])
        assert torch.unique(seen).tolist() == [0, 1, 2, 3]

    def test_the_order_is_drawn_from_the_generator_alone(self, name: str) -> None:
        assert torch.equal(order(name), order(name))
        generator = torch.Generator().manual_seed(0)
        sampler = SAMPLERS.build(name)
        first = sampler.order(LABELS, generator)
        second = sampler.order(LABELS, generator)
        if not torch.equal(first, order(name, seed=1)):  # it draws at all
            assert not torch.equal(first, second)

    def test_labels_of_one_class_are_enough(self, name: str) -> None:
        generator = torch.Generator().manual_seed(0)
        one = torch.full((6,), 3)
        assert SAMPLERS.build(name).order(one, generator).shape == (6,)

    def test_a_tiny_retraining_goes_on_from_a_checkpoint(self, name: str) -> None:
        assert_goes_on(*(tiny_retrain(sampler=name) for _ in range(3)))

    def test_planning_does_not_import_torch(self, name: str) -> None:
        module, samplers = SAMPLERS.get(name).__module__, "nas_sweeps.data.samplers"
        built = f"import {module}\nfrom {samplers} import SAMPLERS\nSAMPLERS.build({name!r})"
        assert heavy_imports(built) == []
