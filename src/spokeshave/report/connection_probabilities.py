"""Connection probabilities of a Tea network: how many are near 0 and 1, how much is left to chance; their histogram.

Wen et al., DAC 2016: a synapse's copies vary by c^2 p (1 - p); biasing brings p to the poles, where nothing varies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spokeshave.report.charts import Axis, Line, line_chart
from spokeshave.report.figures import Figure, LegendEntry
from spokeshave.targets.truenorth.connection_sampling import synaptic_variance
from spokeshave.targets.truenorth.core_grid import NOWHERE
from spokeshave.targets.truenorth.tea_network import TeaNetwork

NEAR = 0.05
"""Distance from a pole within which a probability counts as at it."""
BINS = 20


@dataclass(frozen=True)
class LayerProbabilities:
    """Of the synapses of a layer, or of all layers, that a spike can pass: from something, to a neuron that is heard.

    Attributes:
        name: of the layer.
        cores: that it takes.
        synapses: how many.
        at_poles: share within 0.05 of 0 or 1.
        variance: mean of p (1 - p), 0..0.25.
        shares: of synapses in each of 20 bins from 0 to 1.
    """

    name: str
    cores: int
    synapses: int
    at_poles: float
    variance: float
    shares: tuple[float, ...]


def probabilities_by_layer(network: TeaNetwork) -> tuple[LayerProbabilities, ...]:
    """Measure every layer, then all of them together.

    Args:
        network: whose probabilities outside 0..1 count as the nearest inside, as they are drawn.
    """
    found, rows = [], []
    for number, (layer, used) in enumerate(zip(network.tea_layers, used_synapses(network), strict=True)):
        found.append(layer.inside.detach().cpu()[used])
        rows.append(_measured(f"layer {number + 1}", len(layer.probability), found[-1]))
    return (*rows, _measured("all layers", network.cores, torch.cat(found)))


def used_synapses(network: TeaNetwork) -> list[Bool[Tensor, "cores neurons axons"]]:
    """Of each layer, the synapses that a spike can pass and whose neurons send somewhere or vote.

    Args:
        network: with its sources and votes.
    """
    votes = network.get_buffer("votes").cpu() != NOWHERE
    heard = [_heard(source.cpu(), layer.probability) for source, layer in zip(
        network.sources[1:], network.tea_layers[:-1], strict=True
    )]  # fmt: skip
    arriving = [source.cpu() != NOWHERE for source in network.sources]
    return [neurons[:, :, None] & axons[:, None] for neurons, axons in zip([*heard, votes], arriving, strict=True)]


def histogram_figure(rows: Mapping[str, LayerProbabilities]) -> Figure:
    """Draw the shares of synapses by probability, as steps over each other.

    Args:
        rows: by what they are called; the last is drawn plain, those before it dashed.
    """
    last, lines = len(rows) - 1, []
    for place, (label, row) in enumerate(rows.items()):
        lines.append(Line(label, *_steps(row.shares), tone=float(place < last), dashed=place < last))
    title = "Probabilities of connections"
    axes = (
        Axis("probability, in bins of 0.05", include=(0.0, 1.0)),
        Axis("share of synapses", percent=True, include=(0.0,)),
    )
    said = "; ".join(f"{label}: {100 * row.at_poles:.1f} % within {NEAR} of 0 or 1" for label, row in rows.items())
    chart = line_chart(f"{title}. {said}", lines, *axes, width=460, height=300)
    legend = tuple(LegendEntry(line.label, line.tone, line.dashed) for line in lines)
    return Figure(title, chart, legend if len(lines) > 1 else ())


def _heard(source: Tensor, probability: Tensor) -> Tensor:
    cores, neurons, _ = probability.shape
    heard = torch.zeros(cores * neurons, dtype=torch.bool)
    heard[source[source != NOWHERE]] = True
    return heard.view(cores, neurons)


def _measured(name: str, cores: int, values: Float[Tensor, "synapses"]) -> LayerProbabilities:
    near = (values <= NEAR) | (values >= 1 - NEAR)
    counts = torch.histc(values.float(), BINS, 0, 1)
    total = max(1, values.numel())
    return LayerProbabilities(
        name, cores, values.numel(), float(near.sum()) / total, float(synaptic_variance(values).sum()) / total,
        tuple((counts / total).tolist()),
    )  # fmt: skip


def _steps(shares: Sequence[float]) -> tuple[list[float], list[float]]:
    """Corners of the outline of a histogram."""
    edges = [edge / len(shares) for edge in range(len(shares) + 1) for _ in range(2)]
    heights = [0.0, *(share for share in shares for _ in range(2)), 0.0]
    return edges, heights
