"""Sparse layers: a pruned network whose convolutions and linear layers keep their nonzeros only, for torch's compilers.

The rest of the network stays as it is, so that `torch.compile` and `torch.export` see an ordinary module; each sparse
layer is one operator (direct sparse convolution, Park et al., ICLR 2017) of generated code. `to_sparse` compiles the
whole network and is faster outside of torch's compilers.

Departs from the paper: as in `to_sparse.py`.
"""

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument, NothingChanged
from spokeshave.jit.host_cpu import host_cpu
from spokeshave.rewrites.to_sparse import RunsAs, SparseLayer, SparseReport
from spokeshave.rewrites.verification import PROBES, worst_error
from spokeshave.structures.example_inputs import as_inputs
from spokeshave.structures.graph_tracing import private_copy, restore_modes
from spokeshave.structures.own_costs import OwnCost
from spokeshave.targets.cpu_sparse.compiled_layer import Kernel, compiled_layers
from spokeshave.targets.cpu_sparse.lowering import padding_of
from spokeshave.targets.cpu_sparse.sparse_convolution_op import dense, sparse_conv2d
from spokeshave.targets.cpu_sparse.sparse_linear_op import sparse_linear

MAX_DENSITY = 0.7
"""A layer with a larger share of nonzeros stays dense."""


class _Nonzeros(nn.Module):
    """Nonzeros and bias as buffers.

    Args:
        weight: dense.
        bias: one for each row; zeros if none.
        kernel: what computes the layer.

    Attributes:
        values: float32, [nonzeros].
        places: flat index of each, ascending.
        bias: of each row.
        shape: of the weight.
        rectify: end with max(0, x).
    """

    traced_as_leaf = True
    values: Tensor
    places: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, kernel: Kernel) -> None:
        super().__init__()
        flat = weight.detach().flatten()
        places = flat.nonzero().flatten()
        narrow = flat.numel() < 1 << 31
        self.register_buffer("values", flat[places])
        self.register_buffer("places", places.to(torch.int32 if narrow else torch.int64))
        self.register_buffer("bias", flat.new_zeros(len(weight)) if bias is None else bias.detach().clone())
        self.shape, self.kernel, self.rectify = list(weight.shape), kernel, False

    @property
    def weight(self) -> Tensor:
        """The dense weight, made anew."""
        return dense(self.values, self.places, self.shape)

    def own_costs(self) -> list[OwnCost]:
        """Its numbers, which torch takes for buffers; FLOPs have formulas of torch's counter, beside the operators."""
        count = len(self.values) + int(self.bias.count_nonzero())
        return [OwnCost("", type(self).__name__, count, count, 0, 0)]

    @property
    def density(self) -> float:
        """Share of nonzeros, 0 to 1."""
        return len(self.values) / max(1, torch.Size(self.shape).numel())

    def extra_repr(self) -> str:
        """What is printed of it."""
        return f"{'x'.join(map(str, self.shape))}, density={self.density:.3f}, kernel={self.kernel.name}"


class SparseConv2d(_Nonzeros):
    """A 2-D convolution that keeps its nonzeros only.

    Args:
        layer: with zeros as padding, the same on both sides; it is not modified.
        kernel: generated code, the definition in torch, or what can be had.

    Raises:
        InvalidArgument: the layer has another padding.

    Example:
        >>> layer = nn.Conv2d(1, 1, 2, bias=False)
        >>> layer.weight = nn.Parameter(torch.tensor([[[[0.0, 2.0], [0.0, 0.0]]]]))
        >>> SparseConv2d(layer)(torch.tensor([[[[1.0, 3.0], [4.0, 5.0]]]])).tolist()
        [[[[6.0]]]]
    """

    def __init__(self, layer: nn.Conv2d, kernel: Kernel = Kernel.AUTO) -> None:
        super().__init__(layer.weight, layer.bias, kernel)
        padding = padding_of(layer)
        if isinstance(padding, str):
            raise InvalidArgument(f"layer: expected zeros as padding, the same on both sides, got {padding}")
        self.stride, self.padding, self.dilation = list(layer.stride), list(padding), list(layer.dilation)
        self.groups = layer.groups

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            input: (images, channels, rows, columns).

        Returns:
            (images, filters, rows, columns).
        """
        return sparse_conv2d(
            input,
            self.values,
            self.places,
            self.bias,
            self.shape,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.rectify,
            self.kernel.value,
        )


class SparseLinear(_Nonzeros):
    """A linear layer that keeps its nonzeros only.

    Args:
        layer: it is not modified.
        kernel: generated code, the definition in torch, or what can be had.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> layer.weight = nn.Parameter(torch.tensor([[0.0, 2.0]]))
        >>> SparseLinear(layer)(torch.tensor([[3.0, 4.0]])).tolist()
        [[8.0]]
    """

    def __init__(self, layer: nn.Linear, kernel: Kernel = Kernel.AUTO) -> None:
        super().__init__(layer.weight, layer.bias, kernel)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            input: (..., features).

        Returns:
            (..., rows).
        """
        flat = input if input.ndim == 2 else input.reshape(-1, self.shape[1])
        result = sparse_linear(flat, self.values, self.places, self.bias, self.shape, self.rectify, self.kernel.value)
        return result if input.ndim == 2 else result.reshape(*input.shape[:-1], self.shape[0])


def sparse_layers(
    model: nn.Module,
    example: object,
    *,
    max_density: float = MAX_DENSITY,
    kernel: Kernel = Kernel.AUTO,
    tolerance: float = 1e-5,
) -> tuple[nn.Module, SparseReport]:
    """Put a sparse layer in place of each pruned convolution and linear layer.

    Args:
        model: any module, traceable or not; it is not modified.
        example: input with its batch on axis 0, or a tuple of the arguments of forward.
        max_density: a layer with a larger share of nonzeros stays dense, above 0, at most 1.
        kernel: generated code, the definition in torch, or what can be had.
        tolerance: largest max|new - old| / max|old| on the probes, above 0.

    Returns:
        a copy of the model with these layers, which `torch.compile` and `torch.export` accept; and the report.

    Raises:
        NothingChanged: there is nothing to change: no layer is sparse enough, or of a kind that is known.
        InexactRewrite: the new network does not match the original on the probes.
        InvalidArgument: an argument is out of range.

    Source:
        Park et al., ICLR 2017, section 2.1, one layer at a time.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 2), nn.ReLU())
        >>> net[0].weight = nn.Parameter(torch.eye(2, 4))
        >>> sparse, report = sparse_layers(net, torch.zeros(1, 4))
        >>> sparse[0], report.layers[0].nonzeros
        (SparseLinear(2x4, density=0.250, kernel=AUTO), 2)
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgument(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if not 0 < max_density <= 1:
        raise InvalidArgument(f"max_density: expected a number above 0, at most 1, got {max_density}")
    if not tolerance > 0:
        raise InvalidArgument(f"tolerance: expected a number above 0, got {tolerance}")
    inputs = as_inputs(example)
    notes: list[str] = []
    new, reference = private_copy(model), private_copy(model).eval()
    training = {name: module.training for name, module in new.named_modules()}
    rows: list[SparseLayer] = []
    replaced: dict[nn.Module, nn.Module] = {}
    for name, module in list(new.named_modules()):
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        why = _obstacle(module, max_density)
        weight = module.weight.detach()
        nonzeros = int(weight.count_nonzero())
        sparse = None if why else _sparse(module, kernel)
        if sparse is not None:
            replaced[module] = sparse
        kind = type(sparse or module).__name__
        runs_as = RunsAs.DENSE if sparse is None else RunsAs.GENERATED
        rows.append(SparseLayer(name, kind, runs_as, nonzeros / max(1, weight.numel()), nonzeros, note=why))
    if not replaced:
        raise NothingChanged(
            "there is nothing to change: "
            + ("; ".join(f"{row.name or 'the model'}: {row.note}" for row in rows) or "no convolution or linear layer")
            + ". Prune the network first, or pass a larger max_density"
        )
    new = _put_in_place(new, replaced)
    restore_modes(new.eval(), dict.fromkeys(training, False))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        error = worst_error([new] * PROBES, reference, inputs, tolerance, notes)
    restore_modes(new, training)
    vectors = None if kernel is Kernel.REFERENCE or compiled_layers().refused else host_cpu().widest()
    layers = tuple(rows) if vectors else tuple(replace(row, runs_as=RunsAs.TORCH) for row in rows)
    return new, SparseReport(layers, vectors.name if vectors else "", error, tuple(notes))


def _obstacle(module: nn.Conv2d | nn.Linear, max_density: float) -> str:
    """Why a layer stays as it is; '' where nothing speaks against a sparse one."""
    density = float(module.weight.count_nonzero()) / max(1, module.weight.numel())
    if type(module) not in (nn.Conv2d, nn.Linear):
        return f"{type(module).__name__} may compute something else than its base class"
    if module._forward_hooks or module._forward_pre_hooks:
        return "the module has hooks"
    if module.weight.dtype != torch.float32 or module.weight.device.type != "cpu":
        return f"the weight is {module.weight.dtype} on {module.weight.device}, not float32 on the CPU"
    if density > max_density:
        return f"density {density:.3f} is above max_density {max_density:g}"
    padding = padding_of(module) if isinstance(module, nn.Conv2d) else (0, 0)
    return padding if isinstance(padding, str) else ""


def _sparse(module: nn.Conv2d | nn.Linear, kernel: Kernel) -> nn.Module:
    return SparseConv2d(module, kernel) if isinstance(module, nn.Conv2d) else SparseLinear(module, kernel)


def _put_in_place(model: nn.Module, replaced: dict[nn.Module, nn.Module]) -> nn.Module:
    """The model with some modules exchanged wherever they are used."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child in replaced:
                parent._modules[name] = replaced[cast(nn.Module, child)]
    return replaced.get(model, model)
