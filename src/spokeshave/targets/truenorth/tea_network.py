"""Tea network: blocks of an image to cores, layers of cores, votes of the last ones.

Wen et al., DAC 2016; Esser et al., NIPS 2015: an axon gets one pixel or one neuron, a neuron sends to one axon, and
each neuron of the last layer votes for a class; the scores are the shares of votes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from spokeshave.errors import DataError, InvalidArgument
from spokeshave.targets.truenorth.core_grid import NOWHERE
from spokeshave.targets.truenorth.tea_layer import Synapses, TeaLayer, gathered


class TeaNetwork(nn.Module):
    """A classifier that can be put on neurosynaptic cores.

    Args:
        pixels: of an image, all channels.
        sources: for each layer, what every axon gets: number of a pixel (plus `pixels` times the stream's), or of a
            neuron of the layer before (neurons of core 0 first); -1 for nothing.
        layers: of cores.
        votes: class that each neuron of the last layer votes for; -1 for none.
        classes: how many; by default those that are voted for.
        scale: factor from shares of votes (0..1) to scores, as the cross entropy wants them.
        streams: how many times the image is given, each with spikes of its own.

    Attributes:
        sampled_input: in training, draw the pixels' spikes (by torch's generator) in place of their probabilities.

    Raises:
        InvalidArgument: shapes do not agree, or a neuron would send to two axons.
    """

    form: Tensor
    votes: Tensor

    def __init__(
        self,
        pixels: int,
        sources: Sequence[Int[Tensor, "_ _"]],
        layers: Sequence[TeaLayer],
        votes: Int[Tensor, "cores neurons"],
        classes: int | None = None,
        scale: float = 20.0,
        streams: int = 1,
    ) -> None:
        super().__init__()
        if len(sources) != len(layers) or not layers:
            raise InvalidArgument(f"expected sources for each of at least one layer, got {len(sources)}, {len(layers)}")
        known = pixels * streams
        for number, (source, layer) in enumerate(zip(sources, layers, strict=True)):
            cores, neurons, axons = layer.probability.shape
            if tuple(source.shape) != (cores, axons):
                raise InvalidArgument(
                    f"layer {number}: expected sources of shape {(cores, axons)}, got {tuple(source.shape)}"
                )
            if int(source.min()) < NOWHERE or int(source.max()) >= known:
                raise InvalidArgument(f"layer {number}: sources must be -1..{known - 1}")
            used = source[source != NOWHERE]
            if number and used.unique().numel() != used.numel():
                raise InvalidArgument(
                    f"layer {number}: a neuron has one destination, but two axons have the same source"
                )
            known = cores * neurons
        if tuple(votes.shape) != tuple(layers[-1].probability.shape[:2]) or int(votes.max()) < 0:
            raise InvalidArgument(
                f"votes: expected a class for each of {tuple(layers[-1].probability.shape[:2])} neurons, "
                f"got {tuple(votes.shape)}"
            )
        self.layers = nn.ModuleList(layers)
        self.sampled_input = False
        classes = int(votes.max()) + 1 if classes is None else classes
        if classes <= int(votes.max()) or not 0 < scale < float("inf") or streams < 1:
            raise InvalidArgument(
                f"expected more classes than {int(votes.max())}, a positive scale and at least one stream, got "
                f"{classes}, {scale} and {streams}"
            )
        for number, source in enumerate(sources):
            self.register_buffer(f"sources_{number}", source.long())
        self.register_buffer("votes", votes.long())
        self.register_buffer("form", torch.tensor([pixels, classes, streams, scale], dtype=torch.float64))

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "TeaNetwork":
        """Build the network that a state dict is of: it holds all that there is to know.

        Raises:
            DataError: it is not that of a Tea network.
        """
        try:
            depth = sum(name.startswith("sources_") for name in state)
            own = torch.Generator()  # what is drawn with it is overwritten
            parts = [(state[f"layers.{n}.axon_types"], state[f"layers.{n}.weights"]) for n in range(depth)]
            layers = [TeaLayer(types, weights, own) for types, weights in parts]
            sources = [state[f"sources_{number}"] for number in range(depth)]
            pixels, classes, streams, scale = state["form"].tolist()
            made = cls(int(pixels), sources, layers, state["votes"], int(classes), scale, int(streams))
            made.load_state_dict(dict(state))
        except (KeyError, IndexError, RuntimeError, ValueError, OverflowError, TypeError) as error:
            raise DataError(f"these are not the weights of a whole Tea network: {error}") from error
        return made

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "TeaNetwork":
        form = self.form
        super()._apply(fn, recurse)
        self.form = form.to(self.votes.device)  # half precision would round the number of pixels
        return self

    @property
    def pixels(self) -> int:
        """Of an image, all channels."""
        return int(self.form[0])

    @property
    def classes(self) -> int:
        """That can be voted for."""
        return int(self.form[1])

    @property
    def streams(self) -> int:
        """How many times the image is given."""
        return int(self.form[2])

    @property
    def scale(self) -> float:
        """Factor from shares of votes to scores; may be set."""
        return float(self.form[3])

    @scale.setter
    def scale(self, value: float) -> None:
        self.form[3] = value

    @property
    def sources(self) -> list[Tensor]:
        """What every axon of each layer gets."""
        return [cast(Tensor, getattr(self, f"sources_{number}")) for number in range(len(self.layers))]

    @property
    def tea_layers(self) -> list[TeaLayer]:
        """The layers."""
        return [cast(TeaLayer, layer) for layer in self.layers]

    @property
    def cores(self) -> int:
        """Cores of one copy."""
        return sum(len(layer.probability) for layer in self.tea_layers)

    @property
    def ballots(self) -> Float[Tensor, "neurons classes"]:
        """1 where a neuron of the last layer votes for a class, else 0."""
        votes = cast(Tensor, self.votes).flatten()
        return (nn.functional.one_hot(votes.clamp(min=0), self.classes) * (votes != NOWHERE)[:, None]).float()

    def spike_probabilities(self, images: Float[Tensor, "images *pixels"]) -> Float[Tensor, "images cores neurons"]:
        """Of the last layer's neurons.

        Raises:
            InvalidArgument: images of another size, or with values that are no probabilities.
        """
        x = images.flatten(1)
        if x.shape[1] != self.pixels:
            raise InvalidArgument(f"expected images of {self.pixels} pixels, got {tuple(images.shape[1:])}")
        if not bool(((x >= 0) & (x <= 1)).all()):
            raise InvalidArgument(
                f"expected pixels of 0..1, the probabilities of spikes, got {float(x.min())}..{float(x.max())}"
            )
        x = x.repeat(1, self.streams)
        if self.training and self.sampled_input:
            x = torch.bernoulli(x)
        for number, (source, layer) in enumerate(zip(self.sources, self.tea_layers, strict=True)):
            x = layer(gathered(x.flatten(1), source, once=number > 0))
        return x

    def forward(self, images: Float[Tensor, "images *pixels"]) -> Float[Tensor, "images classes"]:
        """Scores: expected shares of votes times `scale`.

        Args:
            images: pixels in 0..1, the probabilities of their spikes.
        """
        ballots = self.ballots
        return self.scale * (self.spike_probabilities(images).flatten(1) @ ballots) / ballots.sum(0).clamp(min=1)

    def use(self, synapses: Synapses, sampled_input: bool | None = None) -> "TeaNetwork":
        """Take the connections of all layers in another way from now on; gives itself.

        Args:
            synapses: see `Synapses`.
            sampled_input: None for whether connections are rounded: then training sees what one tick of a chip sees.
        """
        self.sampled_input = synapses is Synapses.ROUNDED if sampled_input is None else sampled_input
        for layer in self.tea_layers:
            layer.synapses = synapses
        return self

    def settle(self) -> "TeaNetwork":
        """Take all probabilities to their nearer poles and all leaks to whole numbers, for good; gives itself."""
        for layer in self.tea_layers:
            layer.settle()
        return self.use(Synapses.EXPECTED)
