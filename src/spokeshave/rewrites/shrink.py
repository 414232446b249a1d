"""Shrink: remove dead structure from any network, physically and exactly.

After SSL (Structured Sparsity Learning, Wen et al., NIPS 2016) filters, channels, filter shapes and whole layers are
zero. `shrink` traces the network, finds the channels that the output does not need, cuts them out of every layer that
holds them, folds what dead filters still send (their bias) into the next layers, drops constant residual branches, and
squeezes zero rows and columns that are left.

Departs from the paper: the authors squeeze each layer alone and leave its output shape; here removal crosses layers.
"""

import torch
from torch import Tensor, fx, nn

from spokeshave.errors import InvalidArgument, NothingChanged, RewriteError
from spokeshave.rewrites.channel_removal import remove_channels
from spokeshave.rewrites.constant_branches import replace_constant_branches
from spokeshave.rewrites.constant_input import ConstantInput, PositionBias
from spokeshave.rewrites.liveness import Liveness, find_live
from spokeshave.rewrites.shrink_report import LayerChange, ShrinkReport
from spokeshave.rewrites.squeeze import lowered_masks, squeeze_layers
from spokeshave.rewrites.squeezed_convolution import CroppedConv2d, SqueezedConv2d
from spokeshave.rewrites.squeezed_linear import SqueezedLinear
from spokeshave.rewrites.verification import relative_error, verify
from spokeshave.structures.channel_classes import Coupling
from spokeshave.structures.constant_channels import ChannelState, find_constants
from spokeshave.structures.coupling import couple
from spokeshave.structures.example_inputs import as_inputs
from spokeshave.structures.graph_tracing import TracedNetwork, record_shapes, restore_modes, trace
from spokeshave.structures.operation_kinds import MIXING_MODULES


def shrink(
    model: nn.Module, example: object, *, squeeze: bool = True, tolerance: float = 1e-5
) -> tuple[nn.Module, ShrinkReport]:
    """Remove all dead channels, filters and branches of a network; the result computes the same.

    Args:
        model: any module that `torch.fx` can trace; it is not modified. Weights count as dead when exactly zero.
        example: input with its batch on axis 0, or a tuple of the arguments of forward.
        squeeze: also skip zero rows and columns inside layers, where a cost rule says that this is faster.
        tolerance: largest max|new - old| / max|old| on the probes, above 0.

    Returns:
        the new network (a `torch.fx.GraphModule` with the same submodule names, in the model's train or eval mode) and
        the report.

    Raises:
        NothingChanged: there is nothing to remove; the message says why.
        InexactRewrite: the new network does not match the original on the probes.
        RewriteError: the output no longer depends on the input, or the model is random in eval mode.
        UnsupportedLayer: the model cannot be traced or does not run on the example.
        InvalidArgument: an argument is out of range.

    Source:
        Wen et al., NIPS 2016, section 3; equations are in the files of each step.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> with torch.no_grad():
        ...     _ = net[0].weight[1].zero_()
        >>> smaller, report = shrink(net, torch.zeros(1, 4))
        >>> tuple(smaller.get_submodule("0").weight.shape), report.layers[0].filters_kept
        ((2, 4), 2)
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgument(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if not tolerance > 0:
        raise InvalidArgument(f"tolerance: expected a number above 0, got {tolerance}")
    _refuse_non_finite(model, example)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        return _shrink(model, example, squeeze, tolerance)


def _refuse_non_finite(model: nn.Module, example: object) -> None:
    """NaN hides every difference from the verification at the end, so it may not come in."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        # A buffer may hold infinity for good reason: the mask of a causal attention does.
        bad = torch.isnan if not isinstance(tensor, nn.Parameter) else lambda weight: ~torch.isfinite(weight)
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and bad(tensor).any():
            raise InvalidArgument(f"{name} of the model holds NaN or infinity; go back to a checkpoint before it did")
    for value in as_inputs(example):
        if isinstance(value, Tensor) and value.is_floating_point() and not torch.isfinite(value).all():
            raise InvalidArgument("example: expected finite numbers, got NaN or infinity; pass a real or random input")


def _shrink(model: nn.Module, example: object, squeeze: bool, tolerance: float) -> tuple[nn.Module, ShrinkReport]:
    traced = trace(model, example)
    graph = traced.graph
    before = {name: module for name, module in traced.plain.named_modules() if type(module) in MIXING_MODULES}
    parameters_before = _count(graph)
    called_before = [str(node.target) for node in graph.graph.nodes if node.op == "call_module"]
    coupling, states = _analyse(traced)
    constant = replace_constant_branches(graph, coupling, states)
    if constant:
        record_shapes(graph, traced.probe)
        coupling, states = _analyse(traced)
    live = find_live(graph.graph, coupling, states)
    columns = {call.name: int(live.keep(call.inputs.ids).sum()) for call in coupling.mixing}
    remove_channels(graph, coupling, states, live)
    record_shapes(graph, traced.probe)
    squeezed = squeeze_layers(graph) if squeeze else []
    error, remarks = verify(
        graph, traced.reference, _detached(example), tolerance, lambda probe: _first_difference(model, traced, probe)
    )
    called_after = {str(node.target) for node in graph.graph.nodes if node.op == "call_module"}
    removed = tuple(dict.fromkeys(name for name in called_before if name not in called_after))
    after = _count(graph)
    if not (removed or squeezed or constant or after != parameters_before or _removes(coupling, live)):
        raise NothingChanged(_why_nothing(before, coupling, live, traced.notes))
    layers = tuple(_change(name, before[name], graph, columns, squeezed) for name in _unique(called_before, before))
    restore_modes(graph, traced.training)
    report = ShrinkReport(layers, removed, (*traced.notes, *remarks), error, parameters_before, after)
    return graph, report


def _analyse(traced: TracedNetwork) -> tuple[Coupling, dict[fx.Node, ChannelState]]:
    coupling = couple(traced.graph)
    states, independent = find_constants(traced.graph, coupling, traced.probe, traced.size_locked)
    output = next(node for node in traced.graph.graph.nodes if node.op == "output")
    results = output.all_input_nodes
    if results and all(node in independent for node in results):
        raise RewriteError(
            "the output of the model no longer depends on its input: every path from input to output was zeroed; lower "
            "the regularization strength or exclude a layer, and train again from an earlier checkpoint"
        )
    return coupling, states


def _removes(coupling: Coupling, live: Liveness) -> bool:
    return any(not live.keep(call.outputs.ids).all() for call in coupling.mixing)


def _detached(example: object) -> tuple[object, ...]:
    return tuple(value.detach() if isinstance(value, Tensor) else value for value in as_inputs(example))


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _unique(names: list[str], known: dict[str, nn.Module]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name in known]


def _change(
    name: str, before: nn.Module, graph: nn.Module, columns: dict[str, int], squeezed: list[str]
) -> LayerChange:
    weight = before.weight
    assert isinstance(weight, Tensor)
    transposed = isinstance(before, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    groups = int(getattr(before, "groups", 1))  # type: ignore[arg-type]
    filters = weight.shape[1] * groups if transposed else weight.shape[0]
    channels = weight.shape[0] if transposed else weight.shape[1] * groups
    taps = weight[0, 0].numel()
    try:
        module = graph.get_submodule(name)
    except AttributeError:
        return LayerChange(
            name, type(before).__name__, tuple(weight.shape), (0,), 0, filters, 0, channels, 0, channels * taps, False
        )
    note = ""
    if isinstance(module, (ConstantInput, PositionBias)):
        module = module.get_submodule("layer")
        note = "constant channels folded"
    dense = module.dense_weight() if isinstance(module, SqueezedConv2d) else module.weight
    assert isinstance(dense, Tensor)
    if transposed:
        kept = int(dense.ne(0).reshape(dense.shape[0], dense.shape[1], -1).any(dim=1).sum())
    else:
        kept = int(lowered_masks(dense, int(getattr(module, "groups", 1))).columns.sum())  # type: ignore[arg-type]
    out = int(getattr(module, "total_channels", getattr(module, "out_features", getattr(module, "out_channels", 0))))
    shape = tuple(dense.shape)
    kind = type(before).__name__
    left = columns.get(name, channels)
    if isinstance(module, (SqueezedLinear, CroppedConv2d)):
        left = dense.shape[1] * int(getattr(module, "groups", 1))  # type: ignore[arg-type]
    return LayerChange(
        name,
        kind,
        tuple(weight.shape),
        shape,
        out,
        filters,
        left,
        channels,
        kept,
        channels * taps,
        name in squeezed,
        note,
    )


def _why_nothing(before: dict[str, nn.Module], coupling: Coupling, live: Liveness, notes: list[str]) -> str:
    norms = []
    for name, module in before.items():
        weight = module.weight
        assert isinstance(weight, Tensor)
        axis = 1 if "Transpose" in type(module).__name__ else 0
        rows = weight.detach().transpose(0, axis).reshape(weight.shape[axis], -1).norm(dim=1)
        norms.append((float(rows.min()), name, int(rows.eq(0).sum())))
    smallest = ", ".join(f"{name}: {norm:.3g}" for norm, name, _ in sorted(norms)[:3])
    message = (
        f"nothing to remove: no layer of {len(before)} convolutions and linear layers holds a channel that the output "
        f"does not need. Smallest filter norms: {smallest or 'none'}; only weights that are exactly zero count, so "
        "train with a proximal step or zero the groups below a threshold first"
    )
    zero_rows = [name for _, name, count in norms if count]
    reasons = coupling.pin_reasons(live.classes)
    pinned = []
    for call in coupling.mixing:
        if call.name in zero_rows:
            found = [reasons[c] for c in live.classes[call.outputs.ids].tolist() if c in reasons]
            pinned += [f"{call.name}: {found[0]}"] if found else [f"{call.name}: another branch uses its channels"]
    if pinned:
        message += f". Zero filters that have to stay: {'; '.join(pinned[:5])}"
    return message + (f". {'; '.join(notes)}" if notes else "")


def _first_difference(model: nn.Module, traced: TracedNetwork, probe: tuple[object, ...]) -> str:
    """Name of the first call whose result differs, among the tensors whose shape did not change."""
    original = trace(model, probe)
    seen: dict[str, Tensor] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result = super().run_node(n)
            if isinstance(result, Tensor):
                expected = found.get(n.name)
                if expected is None:
                    seen[n.name] = result
                elif expected.shape == result.shape and relative_error(result, expected) > 1e-4:
                    differing.append(n.name)
            return result

    found: dict[str, Tensor] = {}
    differing: list[str] = []
    with torch.no_grad():
        Recorder(original.graph).run(*probe)
        found = seen
        Recorder(traced.graph).run(*probe)
    return differing[0] if differing else "only the output"
