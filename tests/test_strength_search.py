import math

import pytest
from torch import nn

from spokeshave.errors import NothingChanged
from spokeshave.strength_search import Try, choose, search


def a_try(strength: float, accuracy: float, flops: int) -> Try:
    net = nn.Linear(2, 3)
    return Try(strength, accuracy, flops, net, net, None)


@pytest.mark.parametrize("limit", [0.003, 0.05, 1.0, 7.0, 300.0])
def test_search_brackets_the_limit_within_a_fifth(limit: float) -> None:
    tried: list[float] = []

    def keeps(strength: float) -> bool:
        tried.append(strength)
        return strength <= limit

    search(keeps, 1.0, tries=20)
    assert len(tried) < 14
    strongest_good = max(strength for strength in tried if strength <= limit)
    weakest_bad = min(strength for strength in tried if strength > limit)
    assert weakest_bad < 1.2 * strongest_good


def test_search_that_always_succeeds_or_fails_ends_after_its_tries() -> None:
    tried: list[float] = []
    search(lambda strength: tried.append(strength) is None, 1.0, tries=4)
    assert tried == [1.0, 4.0, 16.0, 64.0]
    tried.clear()
    search(lambda strength: tried.append(strength) is not None, 1.0, tries=4)
    assert tried == [1.0, 1 / 4, 1 / 16, 1 / 64]


def test_search_survives_a_limit_that_is_not_monotonic() -> None:
    tried: list[float] = []

    def keeps(strength: float) -> bool:
        tried.append(strength)
        return round(math.log2(strength)) % 2 == 0

    search(keeps, 1.0, tries=12)
    assert len(tried) == 12 or len(set(tried)) == len(tried)
    assert all(0 < strength < math.inf for strength in tried)


def test_cheapest_that_keeps_the_drop_is_chosen() -> None:
    tries = [a_try(1, 0.95, 100), a_try(2, 0.94, 50), a_try(3, 0.80, 10), a_try(4, 0.93, 50)]
    assert choose(tries, least=0.93, baseline_flops=200, max_drop=2.0).strength == 2


def test_no_try_that_is_smaller_or_good_enough_says_which() -> None:
    with pytest.raises(NothingChanged, match="made nothing smaller"):
        choose([a_try(1, 0.95, 200)], least=0.9, baseline_flops=200, max_drop=2.0)
    with pytest.raises(NothingChanged, match=r"nearest lost 5\.00 more"):
        choose([a_try(1, 0.85, 100)], least=0.9, baseline_flops=200, max_drop=2.0)
    with pytest.raises(NothingChanged, match="no try could be evaluated"):
        choose([], least=0.9, baseline_flops=200, max_drop=2.0)


def test_point_of_a_try() -> None:
    point = a_try(0.25, 0.5, 100).point(test_accuracy=0.9)
    assert point == {
        "label": "strength 0.25",
        "strength": 0.25,
        "error": pytest.approx(0.1),
        "flops": 100,
        "parameters": 9,
        "stage": "shrunk",
    }
