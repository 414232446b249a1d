"""Float trial: whether ternary gradients are faster than floats here, found out by the first steps of the training.

Where the link is not the limit, making codes costs more than it saves. Steps of both kinds are timed in turns, from the
end of one to the end of the next, so that all that a step does counts; the workers decide together, once.
"""

import logging
import statistics
import time
from typing import Any, cast

import torch

from spokeshave.communication.ternary_channel import Channel

WARM_UP = 2
"""Steps that are not timed: DDP lays its buckets out anew after the first, and code is generated."""
FEWEST = 4
"""Steps of a trial; with less than two of each kind the first would decide."""
LEAST_GAIN = 1.05
"""How many times longer float steps must take for codes to be sent: floats lose nothing, so a tie is theirs."""

_Moment = float | torch.cuda.Event
_Span = tuple[_Moment, _Moment]


class FloatTrial:
    """Times the first steps and decides.

    Args:
        steps: to time; 0 for no trial: codes are sent.
        start: number of the first step.

    Attributes:
        verdict: what was found, in words.
    """

    def __init__(self, steps: int, start: int) -> None:
        self._first = start + WARM_UP
        self._end = self._first + max(steps, FEWEST) if steps else 0
        self._ended: tuple[int, _Moment] = (-1, 0.0)
        self._steps: tuple[list[_Span], list[_Span]] = ([], [])
        self._floats = False
        self.verdict: str | None = None

    def sends_floats(self, step: int, channel: Channel, device: torch.device) -> bool:
        """Say whether a step sends floats; at the end of the trial the workers decide.

        Args:
            step: its number.
            channel: to the other workers; nothing else may be on its way there.
            device: of the gradients, which the channel's backend knows.
        """
        if not self._end or channel.workers == 1 or step < self._first:
            return False
        if step < self._end:
            return self._is_float_step(step)
        if self.verdict is None:
            self._decide(channel, step, device)
        return self._floats

    def step_ended(self, step: int, device: torch.device) -> None:
        """Take note of the time; a GPU's own, on the current stream: the host may be steps ahead.

        Args:
            step: its number.
            device: of the gradients.
        """
        if not self._first - 1 <= step < self._end:
            return
        now = _moment(device)
        before, at = self._ended
        if before == step - 1 and step >= self._first:
            self._steps[self._is_float_step(step)].append((at, now))
        self._ended = step, now

    def state_dict(self) -> dict[str, Any]:
        """The decision, as JSON values."""
        return {"floats": self._floats, "verdict": self.verdict}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep to a decision; one that was not reached is left to the steps that follow."""
        self._floats, self.verdict = state["floats"], state["verdict"]

    def _is_float_step(self, step: int) -> bool:
        return (step - self._first) % 2 == 1

    def _decide(self, channel: Channel, step: int, device: torch.device) -> None:
        # A run that was resumed in the middle may have timed nothing of one kind: then codes stay.
        own = [statistics.median(map(_seconds, spans)) if spans else 0.0 for spans in self._steps]
        both = torch.tensor(own, dtype=torch.float64, device=device)
        channel.all_reduce(both).wait()
        codes, floats = (both / channel.workers).tolist()
        self._floats = 0 < floats < LEAST_GAIN * codes
        fast = "floats" if self._floats else "ternary codes"
        self.verdict = (
            f"from step {step} on {fast} are sent: in {self._end - self._first} steps of trial one took "
            f"{1e3 * codes:.1f} ms with ternary codes and {1e3 * floats:.1f} ms with floats"
            + (f"; codes have to gain {LEAST_GAIN - 1:.0%}" if self._floats and codes <= floats else "")
        )
        if channel.rank == 0:
            level = logging.WARNING if self._floats else logging.INFO
            insist = "; another wire than AUTO insists on codes" if self._floats else ""
            logging.getLogger(__name__).log(level, "TernGrad, Wire.AUTO: %s%s", self.verdict, insist)


def _moment(device: torch.device) -> _Moment:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(span: _Span) -> float:
    start, end = span
    if isinstance(start, torch.cuda.Event):
        finish = cast(torch.cuda.Event, end)
        finish.synchronize()
        return start.elapsed_time(finish) / 1e3
    return cast(float, end) - start
