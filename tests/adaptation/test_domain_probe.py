"""The probe: what is alike, what is apart, what is too little."""

import pytest
import torch

from spokeshave.adaptation.domain_probe import Probe, probe_domains
from spokeshave.errors import InvalidArgument


def test_alike_is_a_half_and_apart_is_one() -> None:
    rows = torch.randn(400, 5)
    assert abs(probe_domains(rows[:200], rows[200:]).accuracy - 0.5) < 0.1
    apart = probe_domains(rows[:200], rows[200:] + 8)
    assert apart.accuracy == 1.0 and apart.distance == 2.0


def test_domains_of_other_sizes_count_alike() -> None:
    rows = torch.randn(440, 5)
    assert abs(probe_domains(rows[:400], rows[400:]).accuracy - 0.5) < 0.2


def test_the_distance_is_the_proxy_of_the_paper() -> None:
    assert [Probe(accuracy).distance for accuracy in (0.5, 0.75, 1.0)] == [0.0, 1.0, 2.0]


def test_too_few_rows_and_nan_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="at least 4 finite rows of each domain, got 3 and 9"):
        probe_domains(torch.zeros(3, 2), torch.zeros(9, 2))
    with pytest.raises(InvalidArgument, match="finite rows"):
        probe_domains(torch.full((9, 2), float("nan")), torch.zeros(9, 2))
