import random
import sys
from pathlib import Path

import pytest
import torch
from contestants import SUFFIX, Contestant, Turns, best_of, load, ratio, take_turns, write_models
from torch import nn


def test_a_ratio_is_taken_within_each_round() -> None:
    # 2, 4 and 3 times; the ratio of the medians would be 4.
    assert ratio([2.0, 4.0, 6.0], [1.0, 1.0, 2.0]) == (3.0, 1.0)


def test_one_thread_is_judged_by_cpu_time_and_more_by_the_wall() -> None:
    slow, fast = Turns([9.0], [1.0], [4.0], [0.5]), Turns([1.0], [2.0], [3.0], [1.5])
    assert best_of({"a": slow, "b": fast}, ["a", "b"], 1) == "a"
    assert best_of({"a": slow, "b": fast}, ["a", "b"], 2) == "b"
    assert best_of({"a": slow}, ["b"], 1) is None
    assert (slow.fastest(1), slow.fastest(2)) == (0.5, 4.0)


def test_workers_answer_what_torch_answers_and_a_wrong_network_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()).eval()
    models, example = write_models(network, torch.randn(2, 3, 9, 9), tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    wrong, _ = write_models(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()), torch.randn(2, 3, 9, 9), other)
    crew = {name: Contestant(name, 1, sys.executable) for name in ("spokeshave", "torch-channels-last")}
    try:
        for name, contestant in crew.items():
            assert "relative error" in load(contestant, wrong[SUFFIX[name]], example)
            assert load(contestant, models[SUFFIX[name]], example) == ""
        peak: list[float] = []
        turns = take_turns(crew, 2, 1e-3, random.Random(0), peak)
    finally:
        for contestant in crew.values():
            contestant.close()
    assert set(turns) == set(crew)
    assert all(len(turn.cpu_s) == len(turn.wall_s) == 2 and min(turn.wall_s) > 0 for turn in turns.values())
    assert len(peak) == 4 and min(peak) > 1


def test_a_worker_that_ends_is_reported_and_started_again() -> None:
    contestant = Contestant("torch", 1, sys.executable)
    try:
        contestant._process.kill()
        contestant._process.wait()
        assert "ended" in contestant.ask(do="run", calls=1)["error"]
        assert "error" in contestant.ask(do="load", model="missing.pt", example="missing.npz")
        assert contestant._process.poll() is None
    finally:
        contestant.close()


@pytest.mark.parametrize("name", ["spokeshave", "torch"])
def test_a_missing_environment_does_not_start(name: str) -> None:
    with pytest.raises(FileNotFoundError):
        Contestant(name, 1, "no/such/python")
