"""Graph tracing: any module as a graph of calls, with the shape of every tensor known.

A private copy of the model is traced with `torch.fx` in eval mode. A submodule that cannot be traced stays whole, as
one opaque call; only a top-level forward that cannot be traced is an error. Shapes come from running the graph once on
the example, at a batch size of its own where the model allows it, so that axes are not mixed up by chance.
"""

import copy
import inspect
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from typing import Any

import jaxtyping
import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize, prune
from torch.utils import _pytree as pytree

from spokeshave.errors import UnsupportedLayer
from spokeshave.structures.example_inputs import as_inputs, map_tensors, share_batch, with_batch
from spokeshave.structures.graph_forms import INPLACE_OPERATORS, canonicalise

PROBE_BATCH = 3


@dataclass
class TracedNetwork:
    """A private, canonical graph copy of a model.

    Attributes:
        graph: the graph module; every tensor node has `meta["shape"]`, every plain value `meta["value"]`.
        reference: copy of the model as it was given, in eval mode, for comparisons; nothing of it was rewritten.
        plain: the same without pruning masks and weight parametrizations: where the graph's layers come from.
        probe: the inputs that the shapes belong to.
        training: module name -> training flag of the model as given.
        size_locked: True where the model itself only runs at the example's height and width.
        notes: what was kept whole or changed on the way.
    """

    graph: fx.GraphModule
    reference: nn.Module
    plain: nn.Module
    probe: tuple[object, ...]
    training: dict[str, bool]
    size_locked: bool
    notes: list[str] = field(default_factory=list)


def _duplicate(model: nn.Module, share: bool = False) -> nn.Module:
    """Deep copy without wrappers of data parallelism and of `torch.compile`; it may share the parameters' memory."""
    for wrapper in ("_orig_mod", "module"):
        if type(model).__name__ in ("OptimizedModule", "DataParallel", "DistributedDataParallel"):
            model = getattr(model, wrapper, model)
    memo: dict[int, object] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                memo[id(value)] = value.detach().clone()
    if share:
        for parameter in model.parameters():
            if type(parameter) is nn.Parameter:
                memo[id(parameter)] = nn.Parameter(parameter.detach(), parameter.requires_grad)
    with torch.no_grad():
        return copy.deepcopy(model, memo)


def private_copy(model: nn.Module, share: bool = False, plain: bool = True) -> nn.Module:
    """Deep copy that shares no tensor with the model and carries no pruning or weight parametrization.

    Args:
        model: any module; wrappers of data parallelism and of `torch.compile` are taken off.
        share: let the parameters share the model's memory, for a copy whose weights are only read.
        plain: burn masks and parametrizations in; without it, the copy has them as the model does.

    Returns:
        the copy, with the model's training flags; masks of `torch.nn.utils.prune` and parametrizations are burnt into
        plain parameters, at the values of eval mode (in train mode some change whenever they are read).
    """
    duplicate = _duplicate(model, share)
    training = [(module, module.training) for module in duplicate.modules()]
    duplicate.eval()
    with torch.no_grad():
        for module in list(duplicate.modules()) if plain else ():
            if parametrize.is_parametrized(module):
                _burn_parametrizations(module)
            names = [name.removesuffix("_orig") for name in module._parameters if name.endswith("_orig")]
            for name in names:
                if hasattr(module, f"{name}_mask"):
                    prune.remove(module, name)
    for parameter in duplicate.parameters():
        parameter.grad = None
    for module, flag in training:
        module.training = flag
    return duplicate


def _burn_parametrizations(module: nn.Module) -> None:
    """Plain parameters of the current values; PyTorch's own removal would break the original (same class)."""
    values = {name: getattr(module, name).detach().clone() for name in getattr(module, "parametrizations", {})}
    delattr(module, "parametrizations")
    module.__class__ = type(module).__mro__[1]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))


@contextmanager
def without_shape_checks() -> Iterator[None]:
    """Switch jaxtyping's run-time checks off, of the user's model too: the proxies of a trace are no tensors."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


class _Proxy(fx.Proxy):
    """Keeps `x += y` apart from `x + y`: the first also changes what other names of x hold."""


def _keep_in_place(function: Callable[[object, object], object]) -> Callable[[fx.Proxy, object], fx.Proxy]:
    def call(self: fx.Proxy, other: object) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return call


for _operator in INPLACE_OPERATORS:
    setattr(_Proxy, f"__{_operator.__name__}__", _keep_in_place(_operator))


class LeafTracer(fx.Tracer):
    """A tracer that leaves whole what the rewrites of this package put in place of a layer."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one call."""
        return getattr(m, "traced_as_leaf", False) or super().is_leaf_module(m, module_qualified_name)


class _Tracer(LeafTracer):
    def __init__(self, opaque: frozenset[str]) -> None:
        super().__init__()
        self.opaque = opaque
        self.failed: str | None = None

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self.opaque or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., object], args: tuple[object, ...], kwargs: dict[str, object]
    ) -> object:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.failed is None:
                self.failed = self.path_of_module(m)
            raise


def _defaults_not_given(model: nn.Module, given: int) -> dict[str, object]:
    parameters = list(inspect.signature(model.forward).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {p.name: p.default for p in positional[given:] if p.default is not inspect.Parameter.empty}


def _trace(model: nn.Module, inputs: Sequence[object], notes: list[str]) -> fx.GraphModule:
    opaque: frozenset[str] = frozenset()
    fixed = _defaults_not_given(model, len(inputs))
    while True:
        tracer = _Tracer(opaque)
        try:
            with without_shape_checks():
                graph = tracer.trace(model, concrete_args=fixed or None)
            for node in graph.nodes:  # a saved network imports the types of its arguments; those of shapes are nowhere
                node.type = None
            graph._tracer_cls = None  # a saved network is traced again by PyTorch's own tracer when it is loaded
            return fx.GraphModule(tracer.root, graph, type(model).__name__)
        except Exception as error:
            if tracer.failed is None or tracer.failed in opaque:
                raise UnsupportedLayer(
                    f"{type(model).__name__}: its own forward cannot be traced by torch.fx ({type(error).__name__}: "
                    f"{error}); move the control flow that depends on tensor values or shapes into a submodule, which "
                    "is then kept whole, or shrink the traceable submodules one by one"
                ) from error
            opaque |= {tracer.failed}
            notes.append(
                f"{tracer.failed} ({type(model.get_submodule(tracer.failed)).__name__}) cannot be traced and is kept "
                f"whole: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )


def _branches_on_mode(plain: nn.Module, inputs: Sequence[object], graph: fx.GraphModule) -> bool:
    """Whether forward makes other calls in train mode, which the graph, traced in eval mode, does not hold."""
    try:
        other = _trace(copy.deepcopy(plain).train(), inputs, [])
    except UnsupportedLayer:
        return True
    calls = [[(node.op, node.target) for node in traced.graph.nodes] for traced in (graph, other)]
    return calls[0] != calls[1]


class _ShapeRecorder(fx.Interpreter):
    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        n.meta.pop("value", None)
        n.meta["shape"] = result.shape if isinstance(result, Tensor) else None
        n.meta["dtype"] = result.dtype if isinstance(result, Tensor) else None
        plain = not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(result))
        if plain and n.op not in ("placeholder", "output"):
            n.meta["value"] = result
        return result


class _HastyShapeRecorder(_ShapeRecorder):
    """Gives zeros in place of what the layers compute that take nearly all of the time."""

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self.fetch_attr(target)
        assert isinstance(module, nn.Module)
        shape = None if kwargs or len(args) != 1 else _result_shape(module, args[0])
        return super().call_module(target, args, kwargs) if shape is None else args[0].new_zeros(shape)


def _result_shape(layer: nn.Module, x: Any) -> tuple[int, ...] | None:
    """Shape of what a slow layer gives for an input that suits it; None for everything else."""
    if type(layer) not in (nn.Linear, nn.Conv2d, nn.LocalResponseNorm) or not isinstance(x, Tensor):
        return None
    if layer._forward_hooks or layer._forward_pre_hooks:
        return None
    if isinstance(layer, nn.LocalResponseNorm):
        return tuple(x.shape) if x.ndim > 2 and x.is_floating_point() else None
    weight: Any = layer.weight
    bias: Any = layer.bias
    tensors = [x, weight] if bias is None else [x, weight, bias]
    if not all(isinstance(one, Tensor) and (one.dtype, one.device) == (x.dtype, x.device) for one in tensors):
        return None
    filters = len(weight)
    if bias is not None and bias.shape != (filters,):
        return None
    if isinstance(layer, nn.Linear) and x.ndim and weight.ndim == 2 and x.shape[-1] == weight.shape[1]:
        return (*x.shape[:-1], filters)
    if isinstance(layer, nn.Conv2d) and x.ndim == 4 and weight.ndim == 4 and layer.padding_mode == "zeros":
        whole = x.shape[1] == layer.groups * weight.shape[1] and filters % layer.groups == 0
        if isinstance(layer.padding, str) or not whole:
            return None
        facts = zip(x.shape[2:], layer.padding, layer.dilation, weight.shape[2:], layer.stride, strict=True)
        rows, columns = ((size + 2 * pad - far * (taps - 1) - 1) // step + 1 for size, pad, far, taps, step in facts)
        return (len(x), filters, rows, columns) if min(rows, columns) > 0 else None
    return None


def record_shapes(graph: fx.GraphModule, inputs: tuple[object, ...], hasty: bool = False) -> None:
    """Run the graph once and write `meta["shape"]` (tensors) and `meta["value"]` (plain values) on its nodes.

    Args:
        graph: traced network.
        inputs: arguments of its forward.
        hasty: the numbers do not matter.
    """
    with torch.no_grad():
        (_HastyShapeRecorder if hasty else _ShapeRecorder)(graph).run(*inputs)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep standard error silent while a network runs on inputs that it may refuse: graph modules print a traceback."""
    with redirect_stderr(io.StringIO()):
        yield


def _checked_inputs(reference: nn.Module, inputs: tuple[object, ...], notes: list[str]) -> tuple[object, ...]:
    """Inputs to learn the shapes from, of a model that runs on the example."""
    try:
        reference(*inputs)
    except Exception as error:
        raise UnsupportedLayer(
            f"{type(reference).__name__}: the model does not run on the example "
            f"({type(error).__name__}: {error}); pass an example of the shape, dtype and device it expects"
        ) from error
    return _probe_inputs(reference, inputs, notes)


def _probe_inputs(reference: nn.Module, inputs: tuple[object, ...], notes: list[str]) -> tuple[object, ...]:
    if not share_batch(inputs):
        return inputs
    try:
        probe = with_batch(inputs, PROBE_BATCH)
        with quiet():
            reference(*probe)
    except Exception:  # noqa: BLE001 - a model may be written for one batch size
        notes.append(f"the model does not run at batch size {PROBE_BATCH}; only the example's batch size is checked")
        return inputs
    return probe


def _is_size_locked(reference: nn.Module, inputs: tuple[object, ...]) -> bool:
    """Whether the model fails, or mixes up the batch, at every larger size of the axes behind the batch."""
    own = [leaf for leaf in pytree.tree_leaves(reference(*inputs)) if isinstance(leaf, Tensor)]
    for pads in ((0, 1), (0, 1, 0, 1), (0, 0, 0, 1)):

        def enlarge(tensor: Tensor, pads: tuple[int, ...] = pads) -> Tensor:
            if tensor.ndim < 1 + len(pads) // 2:
                return tensor
            sizes = [tensor.shape[-1 - place // 2] for place in range(len(pads))]
            return torch.nn.functional.pad(tensor, [pad * size for pad, size in zip(pads, sizes, strict=True)])

        larger = map_tensors(enlarge, inputs)
        assert isinstance(larger, tuple)
        if all(a is b for a, b in zip(pytree.tree_leaves(larger), pytree.tree_leaves(inputs), strict=True)):
            continue
        try:
            with quiet():
                grown = [leaf for leaf in pytree.tree_leaves(reference(*larger)) if isinstance(leaf, Tensor)]
        except Exception:  # noqa: BLE001 - the question is whether user code runs
            continue
        if all(a.shape[:1] == b.shape[:1] for a, b in zip(grown, own, strict=False)):
            return False
    return True


def trace(model: nn.Module, example: object, *, inference: bool = False) -> TracedNetwork:
    """Copy a model and trace the copy into a canonical graph; the model itself is untouched.

    Args:
        model: any `torch.fx`-traceable module.
        example: an input with its batch on axis 0, or a tuple of inputs.
        inference: do less, for those who only read the weights, in eval mode, at the example's size: the copies share
            the parameters' memory with the model, other sizes and train mode are not looked at.

    Returns:
        the graph with shapes, an independent eval-mode copy for reference, and notes on what could not be traced.

    Raises:
        InvalidArgument: the example holds no tensor.
        UnsupportedLayer: the model does not run on the example, or its own forward cannot be traced.

    Example:
        >>> traced = trace(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), torch.zeros(1, 4))
        >>> [node.op for node in traced.graph.graph.nodes]
        ['placeholder', 'call_module', 'call_module', 'output']
    """
    inputs = map_tensors(lambda tensor: tensor.detach(), as_inputs(example))
    assert isinstance(inputs, tuple)
    notes: list[str] = []
    plain = private_copy(model, share=inference)
    training = {name: module.training for name, module in plain.named_modules()}
    plain.eval()
    reference = _duplicate(model, share=inference).eval()
    with torch.no_grad():
        hasty = inference and share_batch(inputs)
        probe = with_batch(inputs, PROBE_BATCH) if hasty else _checked_inputs(reference, inputs, notes)
        locked = inference or _is_size_locked(reference, inputs)
    graph = _trace(_duplicate(plain, share=inference), inputs, notes)
    if not inference and _branches_on_mode(plain, inputs, graph):
        notes.append("forward takes another path in train mode; the new network always takes that of eval mode")
    try:
        with quiet():
            record_shapes(graph, probe, hasty)
    except Exception:
        if not hasty:
            raise
        hasty = False
        with torch.no_grad():
            probe = _checked_inputs(reference, inputs, notes)
        record_shapes(graph, probe)
    canonicalise(graph, lambda: record_shapes(graph, probe, hasty))
    return TracedNetwork(graph, reference, plain, probe, training, locked, notes)


def restore_modes(graph: nn.Module, training: Mapping[str, bool]) -> None:
    """Give a rewritten network the train or eval flags of the model that it came from.

    Args:
        graph: the new network; modules are found by name, new ones take the flag of the nearest named parent.
        training: flags by module name.
    """
    for name, module in graph.named_modules():
        while name not in training and name:
            name = name.rpartition(".")[0]
        module.training = training[name]
