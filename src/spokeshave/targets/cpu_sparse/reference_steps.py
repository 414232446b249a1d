"""Reference steps: what every native step means, in torch; the definition that generated code is compared with."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spokeshave.errors import UnsupportedLayer
from spokeshave.targets.cpu_sparse.network_steps import (
    Chain,
    Concatenate,
    Convolve,
    Flatten,
    Multiply,
    NetworkStep,
    NetworkSteps,
    Normalize,
    Pool,
    Softmax,
)
from spokeshave.targets.cpu_sparse.plane_operations import Combine, PlaneScale, Power, Rectify, Scale
from spokeshave.targets.cpu_sparse.pooling import Windows


def run_plainly(network: NetworkSteps, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Run steps one by one.

    Args:
        network: steps without fallbacks.
        inputs: float tensors, [images, ...]; the results have their dtype.

    Returns:
        the network's outputs.
    """
    known = dict(zip(network.inputs, inputs, strict=True))
    for step in network.steps:
        known[step.output] = run_step(step, [known[name] for name in step.inputs])
    return [known[name] for name in network.outputs]


def run_step(step: NetworkStep, inputs: list[Tensor], weight: Tensor | None = None) -> Tensor:
    """Run one step.

    Args:
        step: not a fallback.
        inputs: of the step, [images, ...].
        weight: dense weight of a convolution or linear layer, where it is at hand already.

    Raises:
        UnsupportedLayer: a kind of step that has no plain version.
    """
    value = inputs[0]
    match step:
        case Convolve():
            value = F.conv2d(
                value,
                _like(step.weight.dense() if weight is None else weight, value),
                _like(step.bias, value),
                step.stride,
                step.padding,
                step.dilation,
                step.groups,
            )
            value = value + inputs[1] if len(inputs) > 1 else value
            return value.relu() if step.rectify else value
        case Multiply():
            value = F.linear(
                value, _like(step.weight.dense() if weight is None else weight, value), _like(step.bias, value)
            )
            return value.relu() if step.rectify else value
        case Chain():
            return _chain(step, inputs)
        case Pool():
            return _pool(step, value)
        case Normalize():
            return F.local_response_norm(value, step.size, step.alpha, step.beta, step.k)
        case Softmax():
            return value.softmax(1)
        case Concatenate():
            return torch.cat(inputs, dim=1)
        case Flatten():
            return value.flatten(1)
    raise UnsupportedLayer(f"{step.layer}: {type(step).__name__} has no plain version")


def _like(array: object, value: Tensor) -> Tensor:
    return torch.as_tensor(array).to(value)


def _chain(step: Chain, inputs: list[Tensor]) -> Tensor:
    value = inputs[0]
    for what in step.steps:
        match what:
            case Rectify():
                value = value.relu()
            case Scale(factor, shift):
                value = factor * value + shift
            case PlaneScale():
                scales = _like(step.scales, value).reshape(-1, 2, *(1 for _ in value.shape[2:]))
                value = value * scales[:, 0] + scales[:, 1]
            case Power(exponent):
                value = value**exponent
            case Combine(multiply):
                value = value * inputs[1] if multiply else value + inputs[1]
    return value


def _pool(step: Pool, value: Tensor) -> Tensor:
    axes: tuple[Windows, Windows] = (step.rows, step.columns)
    window, stride, padding = (
        (getattr(axes[0], name), getattr(axes[1], name)) for name in ("window", "stride", "padding")
    )
    if step.mean:
        return F.avg_pool2d(value, window, stride, padding, step.rows.ceil, step.include_padding, step.divisor)
    dilation = (step.rows.dilation, step.columns.dilation)
    return F.max_pool2d(value, window, stride, padding, dilation, step.rows.ceil)
