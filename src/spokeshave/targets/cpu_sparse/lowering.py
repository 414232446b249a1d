"""Lowering: a traced network as the few kinds of work that the engine knows (`network_steps.py`), the rest for torch.

What can become part of a step before it, such as batch normalization, does so afterwards (`step_fusion.py`).
"""

from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor, fx, nn

from spokeshave.structures.graph_tracing import TracedNetwork
from spokeshave.structures.operation_kinds import argument, name_of, source_of
from spokeshave.targets.cpu_sparse.network_steps import (
    Chain,
    Concatenate,
    Convolve,
    Fallback,
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
from spokeshave.targets.cpu_sparse.stored_weight import StoredWeight


def _pair(value: object) -> tuple[int, int]:
    if isinstance(value, (tuple, list)):
        return (int(value[0]), int(value[-1]))
    assert isinstance(value, int)
    return (value, value)


def _array(value: Tensor | None, size: int) -> np.ndarray:
    return np.zeros(size, np.float32) if value is None else value.detach().to(torch.float32).numpy()


def padding_of(convolution: nn.Conv2d) -> tuple[int, int] | str:
    """Zeros above and below, left and right; or what about the padding is not known to the engine.

    Example:
        >>> padding_of(nn.Conv2d(1, 1, 5, padding="same")), padding_of(nn.Conv2d(1, 1, 3, padding_mode="circular"))
        ((2, 2), 'padding mode circular')
    """
    if convolution.padding_mode != "zeros":
        return f"padding mode {convolution.padding_mode}"
    padding = convolution.padding
    if isinstance(padding, str):
        sides = [d * (k - 1) for d, k in zip(convolution.dilation, convolution.kernel_size, strict=True)]
        if padding == "same" and any(side % 2 for side in sides):
            return "padding 'same' that is not the same on both sides"
        return (sides[0] // 2, sides[1] // 2) if padding == "same" else (0, 0)
    return _pair(padding)


def source_batch(node: fx.Node) -> int:
    """Size of axis 0 of what a node reads."""
    source = source_of(node) or node.all_input_nodes[0]
    return int(source.meta["shape"][0])


def is_over_features(axis: object, axes: int) -> bool:
    """Whether a softmax of images is over axis 1: of flat features or of planes.

    Args:
        axis: as given to torch; none for the one that torch takes by itself, which is 1 for these.
        axes: of the tensor, the images' among them.

    Example:
        >>> is_over_features(-1, 2), is_over_features(-3, 4), is_over_features(-1, 4), is_over_features(1, 3)
        (True, True, False, False)
    """
    return axes in (2, 4) and (axis is None or (isinstance(axis, int) and axis % axes == 1))


class _Lowering:
    def __init__(self, traced: TracedNetwork) -> None:
        self.graph = traced.graph
        self.modules = dict(traced.graph.named_modules())
        self.result = NetworkSteps([], {}, [], [])
        shapes = (node.meta.get("shape") for node in self.graph.graph.nodes if node.op == "placeholder")
        self.batch = next((shape[0] for shape in shapes if shape), 0)

    def name(self, node: fx.Node) -> str:
        return self.result.aliases.get(node.name, node.name)

    def run(self) -> NetworkSteps:
        for node in self.graph.graph.nodes:
            shape = node.meta.get("shape")
            if shape is not None:
                self.result.shapes[node.name] = tuple(shape[1:])
            if node.op == "placeholder":
                self.result.inputs.append(node.name)
            elif node.op == "output":
                self.result.outputs = list(dict.fromkeys(self.name(parent) for parent in node.all_input_nodes))
            else:
                self._lower(node)
        return self.result

    def _lower(self, node: fx.Node) -> None:
        source = source_of(node) or next(iter(node.all_input_nodes), None)
        if source is not None and self._is_identity(node):
            self.result.aliases[node.name] = self.name(source)
            return
        step = self._known(node, source) if source is not None else "reads no tensor first"
        if isinstance(step, str):
            inputs = tuple(self.name(parent) for parent in node.all_input_nodes)
            step = Fallback(self._layer(node), inputs, node.name, node, step)
        self.result.steps.append(step)

    def _layer(self, node: fx.Node) -> str:
        return str(node.target) if node.op == "call_module" else node.name

    def _is_identity(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            if type(module) in (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout):
                return True
        name = name_of(node)
        if name in ("flatten", "view", "reshape") or (
            node.op == "call_module" and isinstance(self.modules[str(node.target)], nn.Flatten)
        ):
            return bool(node.meta.get("shape")) and node.meta["shape"] == node.all_input_nodes[0].meta.get("shape")
        return name in ("contiguous", "detach", "float") and node.meta.get("dtype") == torch.float32

    def _known(self, node: fx.Node, source: fx.Node) -> NetworkStep | str:
        shape = source.meta.get("shape")
        if shape is None or node.meta.get("dtype") != torch.float32 or source.meta.get("dtype") != torch.float32:
            return "not float32 tensors"
        if refusal := self._unfit(node, source):
            return refusal
        head = (self._layer(node), (self.name(source),), node.name)
        if node.op == "call_module":
            return self._module(head, self.modules[str(node.target)], node, tuple(shape[1:]))
        return self._function(head, node, tuple(shape[1:]))

    def _unfit(self, node: fx.Node, source: fx.Node) -> str:
        """What about the tensors that a step would read and make is not known to the engine, '' if nothing.

        The engine runs images one after another: a tensor that does not hold one entry for each image, such as a
        parameter that is broadcast or images folded into the channels' place, would be read beyond its end.
        """
        weighted = name_of(node) in ("linear", "conv2d")
        read = (
            [source] if weighted else [value for value in node.all_input_nodes if value.meta.get("shape") is not None]
        )
        for tensor in (node, *read):
            shape = tensor.meta.get("shape")
            if shape is None or len(shape) not in (2, 4):
                return "not planes or flat features of images"
            if tensor.op == "get_attr" or shape[0] != self.batch:
                return "a tensor without one entry for each image"
        return ""

    def _module(
        self, head: tuple[str, tuple[str, ...], str], module: nn.Module, node: fx.Node, shape: tuple[int, ...]
    ) -> NetworkStep | str:
        if module._forward_hooks or module._forward_pre_hooks:
            return "the module has hooks"
        match module:
            case nn.Conv2d() if type(module) is nn.Conv2d and len(shape) == 3:
                padding = padding_of(module)
                if isinstance(padding, str):
                    return padding
                return Convolve(
                    *head,
                    StoredWeight.of(module.weight.detach().numpy()),
                    _array(module.bias, module.out_channels),
                    _pair(module.stride),
                    padding,
                    _pair(module.dilation),
                    module.groups,
                )
            case nn.Linear() if type(module) is nn.Linear and len(shape) == 1:
                return Multiply(
                    *head, StoredWeight.of(module.weight.detach().numpy()), _array(module.bias, module.out_features)
                )
            case nn.ReLU():
                return Chain(*head, (Rectify(),))
            case nn.BatchNorm2d() | nn.BatchNorm1d() if module.running_var is not None and not module.training:
                assert module.running_mean is not None
                factor = (module.running_var.double() + module.eps).rsqrt()
                if module.weight is not None:
                    factor = factor * module.weight.detach().double()
                shift = -module.running_mean.double() * factor
                if module.bias is not None:
                    shift = shift + module.bias.detach().double()
                return Chain(*head, (PlaneScale(),), torch.stack([factor, shift], 1).float().numpy())
            case nn.MaxPool2d() if not module.return_indices and len(shape) == 3:
                return self._pool(
                    head,
                    False,
                    shape,
                    module.kernel_size,
                    module.stride,
                    module.padding,
                    module.dilation,
                    module.ceil_mode,
                )
            case nn.AvgPool2d() if len(shape) == 3:
                pool = self._pool(
                    head, True, shape, module.kernel_size, module.stride, module.padding, 1, module.ceil_mode
                )
                return replace(pool, include_padding=module.count_include_pad, divisor=module.divisor_override)
            case nn.AdaptiveAvgPool2d() if len(shape) == 3 and _pair(module.output_size or 0) == (1, 1):
                return self._pool(head, True, shape, shape[1:], None, 0, 1, False)
            case nn.LocalResponseNorm() if len(shape) == 3:
                return Normalize(*head, module.size, module.alpha, module.beta, module.k)
            case nn.Softmax() if type(module) is nn.Softmax:
                return self._softmax(head, module.dim, shape)
            case nn.Softmax2d() if type(module) is nn.Softmax2d:
                return self._softmax(head, -3, shape)
            case nn.Flatten() if tuple(node.meta["shape"]) == (source_batch(node), prod(shape)):
                return Flatten(*head)
        return f"{type(module).__name__} is not known to the engine"

    def _pool(
        self,
        head: tuple[str, tuple[str, ...], str],
        mean: bool,
        shape: tuple[int, ...],
        window: object,
        stride: object,
        padding: object,
        dilation: object,
        ceil: bool,
    ) -> Pool:
        kernel = _pair(window)
        steps, pads, spread = _pair(stride if stride not in (None, []) else kernel), _pair(padding), _pair(dilation)
        rows, columns = (
            Windows(shape[1 + axis], kernel[axis], steps[axis], pads[axis], spread[axis], bool(ceil)) for axis in (0, 1)
        )
        return Pool(*head, mean, rows, columns)

    def _softmax(
        self, head: tuple[str, tuple[str, ...], str], axis: object, shape: tuple[int, ...]
    ) -> NetworkStep | str:
        if is_over_features(axis, len(shape) + 1):
            return Softmax(*head)
        return f"softmax over axis {axis} of {len(shape) + 1} is not known to the engine, only axis 1 of 2 or 4"

    def _tensor(self, value: object) -> Tensor | None:
        """The parameter or buffer that a node reads, if it is one."""
        if not isinstance(value, fx.Node) or value.op != "get_attr":
            return None
        found: object = self.graph
        for part in str(value.target).split("."):
            found = getattr(found, part)
        return found if isinstance(found, Tensor) else None

    def _functional(
        self, head: tuple[str, tuple[str, ...], str], name: str, node: fx.Node, shape: tuple[int, ...]
    ) -> NetworkStep | str:
        given = argument(node, 2, "bias")
        weight, bias = self._tensor(argument(node, 1, "weight")), self._tensor(given)
        if weight is None or (given is not None and bias is None):
            return f"{name} with a computed weight or bias"
        stored, shift = StoredWeight.of(weight.detach().float().numpy()), _array(bias, len(weight))
        if name == "linear" and len(shape) == 1:
            return Multiply(*head, stored, shift)
        padding = argument(node, 4, "padding", 0)
        if name == "linear" or len(shape) != 3 or isinstance(padding, str):
            return f"{name} of this form is not known to the engine"
        stride, dilation = _pair(argument(node, 3, "stride", 1)), _pair(argument(node, 5, "dilation", 1))
        groups = argument(node, 6, "groups", 1)
        assert isinstance(groups, int)
        return Convolve(*head, stored, shift, stride, _pair(padding), dilation, groups)

    def _function(
        self, head: tuple[str, tuple[str, ...], str], node: fx.Node, shape: tuple[int, ...]
    ) -> NetworkStep | str:
        name = name_of(node)
        other = argument(node, 1, "other")
        if isinstance(argument(node, 0, "input"), (int, float)):  # 2 * x
            other = argument(node, 0, "input")
        if name in ("linear", "conv2d"):
            return self._functional(head, name, node, shape)
        match name:
            case "relu":
                return Chain(*head, (Rectify(),))
            case "add" | "mul":
                if argument(node, 2, "alpha", 1) != 1:
                    return "an addition with a factor"
                if isinstance(other, (int, float)):
                    return Chain(*head, (Scale(1.0, float(other)) if name == "add" else Scale(float(other), 0.0),))
                if isinstance(other, fx.Node) and tuple(other.meta.get("shape", ())[1:]) == shape:
                    return Chain(head[0], (*head[1], self.name(other)), head[2], (Combine(name == "mul"),))
            case "pow":
                exponent = argument(node, 1, "exponent")
                if isinstance(exponent, (int, float)):
                    return Chain(*head, (Power(float(exponent)),))
            case "max_pool2d" if len(shape) == 3 and not argument(node, 6, "return_indices", False):
                return self._pool(
                    head,
                    False,
                    shape,
                    argument(node, 1, "kernel_size"),
                    argument(node, 2, "stride"),
                    argument(node, 3, "padding", 0),
                    argument(node, 4, "dilation", 1),
                    bool(argument(node, 5, "ceil_mode", False)),
                )
            case "avg_pool2d" if len(shape) == 3:
                pool = self._pool(
                    head,
                    True,
                    shape,
                    argument(node, 1, "kernel_size"),
                    argument(node, 2, "stride"),
                    argument(node, 3, "padding", 0),
                    1,
                    bool(argument(node, 4, "ceil_mode", False)),
                )
                return replace(
                    pool,
                    include_padding=bool(argument(node, 5, "count_include_pad", True)),
                    divisor=argument(node, 6, "divisor_override"),
                )
            case "adaptive_avg_pool2d" if len(shape) == 3 and _pair(argument(node, 1, "output_size")) == (1, 1):
                return self._pool(head, True, shape, shape[1:], None, 0, 1, False)
            case "cat" if argument(node, 1, "dim", 0) in (1, -3) and len(shape) == 3:
                parts = argument(node, 0, "tensors")
                assert isinstance(parts, (list, tuple))
                return Concatenate(head[0], tuple(self.name(part) for part in parts), head[2])
            case "softmax":
                return self._softmax(head, argument(node, 1, "dim"), shape)
            case "flatten" | "view" | "reshape" if tuple(node.meta["shape"]) == (source_batch(node), prod(shape)):
                return Flatten(*head)
        return f"{name} is not known to the engine"


def lower(traced: TracedNetwork) -> NetworkSteps:
    """Turn a traced network into steps, without those that nobody reads.

    Args:
        traced: network in eval mode with its shapes.
    """
    network = _Lowering(traced).run()
    _drop_unused(network)
    return network


def _drop_unused(network: NetworkSteps) -> None:
    """Leave out what nobody reads, such as the batch size of a `view` that became a flattening."""
    wanted, kept = set(network.outputs), []
    for step in reversed(network.steps):
        if step.output in wanted:
            wanted.update(step.inputs)
            kept.append(step)
    network.steps = kept[::-1]
