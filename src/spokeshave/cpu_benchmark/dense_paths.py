"""Dense paths: one step of a sparse network as torch runs it, whole or squeezed, for a comparison fair to torch.

Bias, shortcut and rectification included, as in the generated code; in place where torch can. A squeezed layer leaves
out the all-zero rows and columns of its matrix (Wen et al., NIPS 2016) and computes densely on the rest.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spokeshave.rewrites.squeeze import MOST_GROUPS, lowered_masks, squeeze_convolution
from spokeshave.rewrites.squeezed_convolution import SqueezedConv2d
from spokeshave.rewrites.squeezed_linear import SqueezedLinear
from spokeshave.targets.cpu_sparse.network_steps import Convolve, Multiply, NetworkSteps

WeightedStep = Convolve | Multiply


class TorchStep(nn.Module):
    """A convolution or linear layer with the shortcut and rectification that follow it.

    Args:
        layer: the convolution or linear layer, or what squeezing made of it.
        rectify: end with max(0, x).
    """

    def __init__(self, layer: nn.Module, rectify: bool) -> None:
        super().__init__()
        self.layer, self.rectify = layer, rectify

    def forward(self, *values: Tensor) -> Tensor:
        """Compute.

        Args:
            values: the input, and what is added to the output, if anything is.
        """
        result = self.layer(values[0])
        if len(values) > 1:
            result += values[1]
        return result.relu_() if self.rectify else result


def plain_layer(step: WeightedStep) -> nn.Conv2d | nn.Linear:
    """The torch layer of a step, on a dense copy of its weight, in inference.

    Args:
        step: of a network.
    """
    weight = torch.from_numpy(step.weight.dense())
    if isinstance(step, Convolve):
        height, width = step.weight.shape[2:]
        layer = nn.utils.skip_init(
            nn.Conv2d,
            weight.shape[1] * step.groups,
            len(weight),
            (height, width),
            step.stride,
            step.padding,
            step.dilation,
            step.groups,
        )
    else:
        layer = nn.utils.skip_init(nn.Linear, weight.shape[1], len(weight))
    assert isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(torch.tensor(step.bias), requires_grad=False)
    return layer.eval()


def squeezed_layer(step: WeightedStep, shapes: dict[str, tuple[int, ...]]) -> nn.Module | None:
    """The step's layer without its all-zero rows and columns; none where it has none of them.

    Args:
        step: of a network.
        shapes: value name -> shape without the batch.

    Returns:
        the form that squeezing expects to be fastest, else one that gathers the columns.
    """
    layer = plain_layer(step)
    groups = step.groups if isinstance(step, Convolve) else 1
    masks = lowered_masks(layer.weight, groups)
    if not masks.rows.any() or groups > MOST_GROUPS:
        return None
    if isinstance(layer, nn.Linear):
        return None if masks.columns.all() else SqueezedLinear(layer, masks.columns[0])
    if masks.columns.all() and masks.rows.all():
        return None
    form = squeeze_convolution(layer, shapes[step.inputs[0]][1:], shapes[step.output][1:])
    return form or SqueezedConv2d(layer, list(masks.columns), None if masks.rows.all() else masks.rows)


@dataclass(frozen=True)
class TorchPaths:
    """What torch could run in place of one step.

    Attributes:
        dense: the layer as it is.
        dense_last: the same with its weight in channels-last order; none for a linear layer.
        squeezed: without zero rows and columns; none where there are none.
    """

    dense: TorchStep
    dense_last: TorchStep | None
    squeezed: TorchStep | None

    @classmethod
    def of(cls, step: WeightedStep, network: NetworkSteps) -> "TorchPaths":
        """Make them.

        Args:
            step: of the network.
            network: that has the shapes.
        """
        squeezed, last = squeezed_layer(step, network.shapes), None
        if isinstance(step, Convolve):
            last = TorchStep(plain_layer(step).to(memory_format=torch.channels_last), step.rectify)  # pyright: ignore[reportCallIssue]
        return cls(
            TorchStep(plain_layer(step), step.rectify),
            last,
            None if squeezed is None else TorchStep(squeezed, step.rectify),
        )


class Activations:
    """Random values for the inputs of layers, all in the same memory: as warm as if the layer before had just run.

    Args:
        network: whose values are wanted.
        images: in a batch.
    """

    def __init__(self, network: NetworkSteps, images: int) -> None:
        self.network, self.images = network, images
        most = max(torch.Size(shape).numel() for shape in network.shapes.values())
        generator = torch.Generator().manual_seed(0)
        self._memory = [torch.randn(images * most, generator=generator) for _ in range(2)]

    def of(self, step: WeightedStep, channels_last: bool = False) -> list[Tensor]:
        """Inputs of a step.

        Args:
            step: of the network.
            channels_last: give planes in that order.
        """
        values = []
        for memory, name in zip(self._memory, step.inputs, strict=False):
            shape = (self.images, *self.network.shapes[name])
            flat = memory[: torch.Size(shape).numel()]
            if channels_last and len(shape) == 4:
                images, channels, height, width = shape
                values.append(flat.view(images, height, width, channels).permute(0, 3, 1, 2))
            else:
                values.append(flat.view(shape))
        return values
