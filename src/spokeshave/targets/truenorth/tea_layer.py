"""Tea layer: neurosynaptic cores while they learn; what is learned is the probability of each connection.

Esser et al., Backpropagation for Energy-Efficient Neuromorphic Computing, NIPS 2015 (Tea); Wen et al., DAC 2016:

    w = p c,   mu = sum_i p_i c_i x_i - lambda,   sigma^2 = sum_i c_i^2 p_i x_i (1 - p_i x_i),
    P(spike) = Phi((mu + 1/2) / sigma)

with p in [0, 1], c the weight of the axon's type and x the probability of an arriving spike.
Departs from the papers: + 1/2, since the sum is a whole number and fires at 0; without it copies never reach the
network that was trained. `Synapses.ROUNDED` is a straight-through variant.
"""

from enum import Enum
from typing import Any, cast

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument
from spokeshave.targets.truenorth.core_grid import NOWHERE

LEAK_UNIT = 8.0
"""Of the parameter: Adam moves all parameters by about the learning rate, and sums of 256 spikes want larger leaks."""
_SURE = 1e-6
"""Added to the variance: a sum that nothing random is in then gives exactly 0 or 1."""


class Synapses(Enum):
    """What the forward pass takes for the connections; what is learned are their probabilities always."""

    EXPECTED = "expected"
    """Tea: their mean and variance."""
    ROUNDED = "rounded"
    """The likelier of on and off, as RANC trains: copies are then alike. Of arriving spikes that are 0 and 1 the layer
    gives spikes that are 0 and 1; gradients go by a normal distribution as wide as the probabilities make it."""


def spike_probability(
    x: Float[Tensor, "images cores axons"],
    probability: Float[Tensor, "cores neurons axons"],
    weights: Float[Tensor, "cores neurons axons"],
    leak: Float[Tensor, "cores neurons"],
) -> Float[Tensor, "images cores neurons"]:
    """Probability that a neuron fires, by the normal distribution of the sum that reaches it.

    Args:
        x: probabilities that spikes arrive, 0..1.
        probability: that connections are on, 0..1.
        weights: c, what a spike adds where the connection is on.
        leak: added to the sum.

    Example:
        >>> one = torch.ones(1, 1, 1)
        >>> spike_probability(one, 0.5 * one, -2 * one, torch.ones(1, 1)).item()  # 1 or -1, as likely: Phi(0.5 / 1)
        0.691...
    """
    expected = probability * weights
    x = x.transpose(0, 1)
    mean = x @ expected.mT + leak[:, None]
    variance = x @ (expected * weights).mT - x.square() @ expected.square().mT
    deviation = (variance.clamp(min=0) + _SURE).sqrt()
    return torch.special.ndtr((mean + 0.5) / deviation).transpose(0, 1)


def rounded(probability: Float[Tensor, "*crosspoints"]) -> Float[Tensor, "*crosspoints"]:
    """Connections of 0 and 1, the likelier of both, whose gradient goes to the probabilities unchanged.

    Example:
        >>> rounded(torch.tensor([0.2, 0.5, 0.9])).tolist()
        [0.0, 1.0, 1.0]
    """
    return probability + ((probability >= 0.5).to(probability) - probability).detach()


def rounded_spikes(
    x: Float[Tensor, "images cores axons"],
    probability: Float[Tensor, "cores neurons axons"],
    weights: Float[Tensor, "cores neurons axons"],
    leak: Float[Tensor, "cores neurons"],
) -> Float[Tensor, "images cores neurons"]:
    """`spike_probability` of rounded connections and leaks, with a gradient that is not 0 nearly everywhere.

    The gradient is that of Phi((mu + 1/2) / s): mu of the rounded connections, s^2 their variance before rounding, and
    1 more, about what the sum moves by where one crosspoint is turned.

    Args:
        x: as there; 0 and 1 give 0 and 1.
        probability: as there.
        weights: as there.
        leak: as there.
    """
    on, whole = rounded(probability), leak + (leak.round() - leak).detach()
    with torch.no_grad():
        value = spike_probability(x, on, weights, whole)
        expected, given = probability * weights, x.transpose(0, 1)
        variance = given @ (expected * weights).mT - given.square() @ expected.square().mT
    mean = given @ (on * weights).mT + whole[:, None]
    smooth = torch.special.ndtr((mean + 0.5) / (variance + 1).sqrt()).transpose(0, 1)
    return smooth + (value - smooth).detach()


class TeaLayer(nn.Module):
    """Some cores that run side by side.

    Args:
        axon_types: of each core's axons, 0..3.
        weights: of each neuron, by axon type.
        generator: of the first probabilities, uniform in 0..1.

    Attributes:
        probability: parameter [cores, neurons, axons] in 0..1; values outside count as the nearest inside.
        scaled_leak: parameter [cores, neurons], the leak in units of `LEAK_UNIT`.
        synapses: how the forward pass takes the connections.

    Raises:
        InvalidArgument: shapes do not agree, or an axon type has no weight.
    """

    def __init__(
        self,
        axon_types: Integer[Tensor, "cores axons"],
        weights: Int[Tensor, "cores neurons types"],
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if len(axon_types) != len(weights) or int(axon_types.max()) >= weights.shape[2]:
            raise InvalidArgument(
                f"expected types below {weights.shape[-1]} of as many cores as weights have, got types up to "
                f"{int(axon_types.max())} of {len(axon_types)} cores, weights of {len(weights)}"
            )
        cores, neurons, axons = len(weights), weights.shape[1], axon_types.shape[1]
        self.probability = nn.Parameter(torch.rand(cores, neurons, axons, generator=generator))
        self.scaled_leak = nn.Parameter(torch.zeros(cores, neurons))
        self.register_buffer("axon_types", axon_types.to(torch.uint8))
        self.register_buffer("weights", weights.to(torch.int32))
        self.synapses = Synapses.EXPECTED

    @property
    def leak(self) -> Float[Tensor, "cores neurons"]:
        """-lambda, what is added in every tick; rounded on the chip."""
        return LEAK_UNIT * self.scaled_leak

    @property
    def synapse_weights(self) -> Float[Tensor, "cores neurons axons"]:
        """c of each crosspoint."""
        types = cast(Tensor, self.axon_types).long()[:, None].expand(self.probability.shape)
        return cast(Tensor, self.weights).to(self.probability.dtype).gather(2, types)

    @property
    def inside(self) -> Float[Tensor, "cores neurons axons"]:
        """The probabilities; those that a step took out of 0..1 at the end that they passed, with a gradient."""
        clamped = self.probability.clamp(0, 1)
        return self.probability + (clamped - self.probability).detach()

    def forward(self, x: Float[Tensor, "images cores axons"]) -> Float[Tensor, "images cores neurons"]:
        """Probabilities of spikes from those of arriving spikes; in training, first takes its own back into 0..1."""
        if self.training:
            self._project()
        run = spike_probability if self.synapses is Synapses.EXPECTED else rounded_spikes
        return run(x, self.inside, self.synapse_weights, self.leak)

    @torch.no_grad()
    def settle(self) -> None:
        """Take all probabilities to their nearer poles, and all leaks to whole numbers; copies are then alike."""
        self.probability.copy_(rounded(self.inside))
        self.scaled_leak.copy_(self.leak.round() / LEAK_UNIT)

    @torch.no_grad()
    def _project(self) -> None:
        # Written only where a step has left the range: autograd refuses weights written between forward and backward.
        if bool((self.probability < 0).any()) or bool((self.probability > 1).any()):
            self.probability.clamp_(0, 1)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        cores, neurons, axons = self.probability.shape
        return f"cores={cores}, axons={axons}, neurons={neurons}, synapses={self.synapses.value}"


def gathered(x: Float[Tensor, "images sources"], sources: Int[Tensor, "cores axons"], once: bool = False) -> Tensor:
    """What reaches each axon, [images, cores, axons]; 0 where none of the sources does.

    Args:
        x: of pixels or neurons.
        sources: number of each axon's.
        once: each source is there at most once, as a neuron has one destination; gradients then go back faster.
    """
    if once and x.requires_grad:
        return _Gathered.apply(x, sources)
    return _taken(x, sources.flatten()).unflatten(1, sources.shape)


def _taken(x: Tensor, numbers: Tensor) -> Tensor:
    return x.index_select(1, numbers.clamp(min=0)) * (numbers != NOWHERE)


class _Gathered(torch.autograd.Function):
    """Goes back by reading, too, which takes a fraction of the time that adding into place does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sources: Tensor) -> Tensor:
        back = torch.full((x.shape[1],), NOWHERE, device=x.device)
        flat = sources.flatten()
        used = (flat != NOWHERE).nonzero().flatten()
        back[flat[used]] = used
        ctx.save_for_backward(back)
        return _taken(x, flat).unflatten(1, sources.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _taken(gradients[0].flatten(1), ctx.saved_tensors[0]), None
