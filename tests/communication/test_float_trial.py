"""The trial on a clock that the test sets; how workers agree is seen among processes in test_terngrad."""

import types

import torch

from gloo_workers import run_workers
from spokeshave.communication import float_trial
from spokeshave.communication.float_trial import FloatTrial
from spokeshave.communication.ternary_channel import Channel

CPU = torch.device("cpu")


def kinds_of_steps(rank: int, workers: int) -> list[tuple[str, str | None]]:
    from torch import distributed

    assert distributed.group.WORLD is not None
    channel, found = Channel(distributed.group.WORLD), []
    # One worker alone thinks that floats are slower; what they have together decides.
    for codes_s, floats_s in ((3.0, 2.0 + 1.5 * rank), (2.0, 2.0 + rank), (2.0, 2.02 + 0.1 * rank), (3.0, 1.0)):
        clock = types.SimpleNamespace(now=0.0)
        float_trial.time = types.SimpleNamespace(perf_counter=lambda clock=clock: clock.now)
        trial, sent = FloatTrial(8, start=3), ""
        for step in range(16):
            floats = trial.sends_floats(step, channel, CPU)
            sent += "f" if floats else "c"
            clock.now += floats_s if floats else codes_s
            trial.step_ended(step, CPU)
        found.append((sent, trial.verdict))
    none = FloatTrial(0, start=0)
    assert not any(none.sends_floats(step, channel, CPU) for step in range(30)) and none.verdict is None
    resumed = FloatTrial(8, start=3)
    resumed.load_state_dict(trial.state_dict())
    assert resumed.sends_floats(40, channel, CPU)
    # Resumed behind the trial without a decision: nothing was timed, codes stay.
    late = FloatTrial(8, start=3)
    assert not late.sends_floats(40, channel, CPU)
    return found


def test_workers_time_both_kinds_in_turns_and_decide_together() -> None:
    first, second = run_workers(kinds_of_steps, 2)
    assert first == second
    kinds, verdicts = zip(*first, strict=True)
    trial = "ccccc" + "cf" * 4
    assert kinds == (trial + "fff", trial + "ccc", trial + "fff", trial + "fff")
    assert verdicts[0] is not None
    assert verdicts[0].startswith("from step 13 on floats are sent: in 8 steps of trial one took 3000.0 ms with ")
    assert verdicts[0].endswith("ternary codes and 2750.0 ms with floats")
    assert verdicts[1] is not None and "ternary codes are sent" in verdicts[1]
    assert verdicts[2] is not None and verdicts[2].endswith("2070.0 ms with floats; codes have to gain 5%")
