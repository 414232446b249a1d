"""Guidance: which layers are worth pruning on a machine, decided by its roofline while the network is pruned.

Park et al., ICLR 2017, section 2.3, guided sparsity learning: layers without a projected speedup are not pruned; a
layer whose sparsity has settled without reaching a useful level gets its dense weights back; one that has reached the
level at which memory takes the time is not pruned further.
Departs from the paper: the decisions are automatic (the released code has multipliers set by hand); "useful" is a
projected speedup above 1, which also counts memory traffic; a layer that memory binds at every density is held once
its weights take no more traffic than its activations.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from spokeshave.errors import CheckpointError, InvalidArgument
from spokeshave.structures.layer_work import layer_works
from spokeshave.structures.roofline_model import LayerWork, MachineRates, projected_speedup, upper_bound


class Verdict(Enum):
    """What the guide thinks of a layer."""

    PRUNED = 0
    """Worth pruning: it is pulled."""
    USELESS = 1
    """No sparsity would make it faster: never pulled."""
    HELD = 2
    """Past the upper bound: its zeros stay, no more are made."""
    RESTORED = 3
    """Settled at a density of no use: its dense weights are back, it is not pulled any more."""


@dataclass(frozen=True)
class GuideEvent:
    """A decision.

    Attributes:
        step: of the optimizer, 0 for what was known at the start.
        layer: its name.
        what: was decided.
        x: share of its weights that were not zero.
        projected_speedup: at that density.
    """

    step: int
    layer: str
    what: Verdict
    x: float
    projected_speedup: float

    def __str__(self) -> str:
        """The event as a line for a page."""
        said = {
            Verdict.USELESS: "never pruned: no sparsity makes it faster",
            Verdict.HELD: "held: more zeros would gain little",
            Verdict.RESTORED: "dense again: it settled where sparsity does not pay",
        }
        return (
            f"step {self.step}: {self.layer} {said.get(self.what, 'pruned')} "
            f"(density {self.x:.3f}, projected speedup {self.projected_speedup:.2f})"
        )


class Guide:
    """Decides, layer by layer, whether pruning goes on; regularizers ask it.

    Args:
        model: that is pruned; its convolutions and linear layers are looked at.
        example: input of the model, batch first.
        roofline: what the machine does that the network is for.
        batch: images at a time on that machine.
        every: steps between two looks.
        judge_from: step before which no layer is restored, since sparsity needs time to grow.
        patience: looks over which a density must not have changed to count as settled, at least 2.
        tolerance: change of density that counts as none, 0..1.
        nominal: rates that are assumed where none were measured: those of a state that holds none.

    Raises:
        InvalidArgument: for a count below 1 or a tolerance outside 0..1.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 32, 5))
        >>> guide = Guide(net, torch.zeros(1, 3, 16, 16), MachineRates(1e11, 2.0, 1e10))
        >>> guide.verdicts  # the first does 48 FLOPs for each 44 bytes that it moves
        {'0': <Verdict.USELESS: 1>, '1': <Verdict.PRUNED: 0>}
    """

    def __init__(
        self,
        model: nn.Module,
        example: Tensor,
        roofline: MachineRates,
        *,
        batch: int = 1,
        every: int = 100,
        judge_from: int = 0,
        patience: int = 3,
        tolerance: float = 0.01,
        nominal: MachineRates | None = None,
    ) -> None:
        if batch < 1 or every < 1 or judge_from < 0 or patience < 2 or not 0 <= tolerance <= 1:
            raise InvalidArgument(
                "expected batch and every of at least 1, judge_from of at least 0, patience of at least 2 and a "
                f"tolerance of 0..1, got {batch}, {every}, {judge_from}, {patience} and {tolerance}"
            )
        self.rates, self.nominal, self.batch, self.every = roofline, nominal, batch, every
        self.judge_from, self.patience, self.tolerance = judge_from, patience, tolerance
        self.works = layer_works(model, example)
        self._layers = {name: model.get_submodule(name) for name in self.works}
        self.step = -1
        self.events: list[GuideEvent] = []
        self.verdicts = dict.fromkeys(self.works, Verdict.PRUNED)
        self._watched: set[str] = set()
        self._recent: dict[str, list[float]] = {name: [] for name in self.works}
        self._dense: dict[str, Tensor] = {}
        self._masks: dict[str, Tensor] = {}
        for name, work in self.works.items():
            best = projected_speedup(work, self.rates, 0.0, batch)
            if best <= 1:
                self._decide(0, name, Verdict.USELESS, best)

    @property
    def machine(self) -> str:
        """The rates that decide, as a line for a page."""
        rates = self.rates
        return (
            f"the guide's machine: {rates.dense_flops_per_s / 1e9:.3g} GFLOP/s dense, alpha {rates.alpha:.3g}, "
            f"{rates.bytes_per_s / 1e9:.3g} GB/s, beta {rates.beta:.3g}"
            + (" (nominal, not measured)" if rates == self.nominal else "")
        )

    def pulls(self, layer: str) -> bool:
        """Whether a layer is to be pruned further; True for one that the guide does not know."""
        return self.verdicts.get(layer, Verdict.PRUNED) is Verdict.PRUNED

    def watch(self, layers: Iterable[str]) -> None:
        """Judge these layers from now on; a layer that nobody prunes is never touched.

        Args:
            layers: names of those that a regularizer prunes.
        """
        self._watched |= self.works.keys() & set(layers)

    @torch.no_grad()
    def observe(self, step: int) -> None:
        """Look at the weights before an optimizer step; several regularizers may ask for the same step.

        Args:
            step: number of steps done.
        """
        if step <= self.step:
            return
        self.step = step
        mine = [name for name in self.works if name in self._watched and self.pulls(name)]
        for name in mine:
            if name not in self._dense:
                self._dense[name] = self._weight(name).clone()
        if step and step % self.every == 0:
            for name in mine:
                self._judge(step, name, self.works[name])

    @torch.no_grad()
    def hold(self) -> None:
        """After an optimizer step: zeros of layers past the upper bound stay zero."""
        for name, mask in self._masks.items():
            self._weight(name).masked_fill_(~mask, 0.0)

    def state_dict(self) -> dict[str, Tensor]:
        """Verdicts, events, densities, the machine's rates, dense copies and masks."""
        names = list(self.works)
        recent = [[math.nan] * (self.patience - len(self._recent[n])) + self._recent[n] for n in names]
        events = [[e.step, names.index(e.layer), e.what.value, e.x, e.projected_speedup] for e in self.events]
        state = {
            "step": torch.tensor(self.step),
            "verdicts": torch.tensor([verdict.value for verdict in self.verdicts.values()]),
            "recent": torch.tensor(recent, dtype=torch.float64),
            "events": torch.tensor(events, dtype=torch.float64).reshape(-1, 5),
            "rates": torch.tensor(astuple(self.rates), dtype=torch.float64),
        }
        return state | _prefixed("dense", self._dense) | _prefixed("mask", self._masks)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, the machine's rates too: a resumed run decides as it began.

        Raises:
            CheckpointError: where it belongs to another model.
        """
        if len(state.get("verdicts", ())) != len(self.works):
            raise CheckpointError(f"the guide's state belongs to another model: this one has {len(self.works)} layers")
        names = list(self.works)
        if "rates" in state:
            self.rates = MachineRates(*map(float, state["rates"]))
        elif self.nominal is not None:
            self.rates = self.nominal
        self.step = int(state["step"])
        self.verdicts = {n: Verdict(int(v)) for n, v in zip(names, state["verdicts"], strict=True)}
        self._recent = {
            name: [float(x) for x in row if not math.isnan(x)] for name, row in zip(names, state["recent"], strict=True)
        }
        self.events = [
            GuideEvent(int(step), names[int(layer)], Verdict(int(what)), float(x), float(speedup))
            for step, layer, what, x, speedup in state["events"].tolist()
        ]
        self._dense = {n: t.to(self._weight(n)) for n, t in _part("dense", state).items()}
        self._masks = {n: t.bool().to(self._weight(n).device) for n, t in _part("mask", state).items()}

    def _judge(self, step: int, name: str, work: LayerWork) -> None:
        weight = self._weight(name)
        x = float((weight != 0).double().mean())
        speedup = projected_speedup(work, self.rates, x, self.batch)
        recent = self._recent[name] = [*self._recent[name], x][-self.patience :]
        saturated = min(
            upper_bound(work, self.rates, self.batch),
            self.batch * work.activation_bytes / (self.rates.beta * work.weight_bytes),
        )
        settled = len(recent) == self.patience and max(recent) - min(recent) <= self.tolerance
        if x <= saturated and speedup > 1:
            self._masks[name] = weight != 0
            self._decide(step, name, Verdict.HELD, speedup, x)
        elif speedup <= 1 and settled and step >= self.judge_from:
            weight.copy_(self._dense[name])
            self._decide(step, name, Verdict.RESTORED, speedup, x)

    def _decide(self, step: int, name: str, verdict: Verdict, speedup: float, x: float = 1.0) -> None:
        self.verdicts[name] = verdict
        self.events.append(GuideEvent(step, name, verdict, x, speedup))
        self._dense.pop(name, None)

    def _weight(self, name: str) -> Tensor:
        return self._layers[name].get_parameter("weight")


def guide_notes(regularizers: Iterable[object]) -> list[str]:
    """The machine and the decisions of the guides that some regularizers ask, each guide once."""
    guides = {id(guide): guide for item in regularizers if (guide := getattr(item, "guide", None)) is not None}
    return [line for guide in guides.values() for line in (guide.machine, *map(str, guide.events))]


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _part(prefix: str, state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name.split(".", 1)[1]: tensor for name, tensor in state.items() if name.startswith(prefix + ".")}
