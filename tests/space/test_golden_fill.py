from __future__ import annotations

import pytest
from golden_fill import checksum, goldens, inp, u

FILL = goldens()["fill"]


def test_numbers_start_as_published() -> None:
    assert u(8).tolist() == pytest.approx(FILL["u_first8"], rel=1e-9)
    assert u(3, off=10**6).tolist() == pytest.approx(FILL["u_off1e6_first3"], rel=1e-9)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("inp_4_3_16", (4, 3, 16)),
        ("inp_2_4_8", (2, 4, 8)),
        ("inp_4_3_32", (4, 3, 32)),
        ("inp_4_3_16_off1e6", (4, 3, 16, 10**6)),
    ],
)
def test_inputs_have_the_golden_checksums(name: str, arguments: tuple[int, ...]) -> None:
    batch = inp(*arguments)
    assert list(batch.shape) == FILL[name]["shape"]
    expected = (FILL[name]["sum"], FILL[name]["wsum"], FILL[name]["norm"])
    assert checksum(batch) == pytest.approx(expected, rel=1e-10)
