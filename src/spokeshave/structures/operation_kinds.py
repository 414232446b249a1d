"""Operation kinds: what a call in a traced network does to the channels of a tensor.

Removing channels is exact only where every operation is understood. This table names the operations that are; anything
else is a `Kind.BARRIER`, whose inputs and outputs keep all their channels. Module, function and method forms of the
same operation share one entry. No equation and no paper: this is bookkeeping about PyTorch.
"""

import enum
import operator
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import fx, nn


class Kind(enum.Enum):
    """How an operation treats the channel axis."""

    MIXING = "every output channel is a weighted sum of input channels"
    PER_CHANNEL = "one or more parameters per channel"
    POINTWISE = "element by element, with broadcasting"
    SPATIAL = "works inside each channel, over the axes behind axis 1"
    PAD = "pads"
    CONCAT = "concatenates"
    FLATTEN = "merges axes"
    UNFLATTEN = "splits an axis"
    PERMUTE = "reorders axes"
    REDUCE = "reduces axes"
    SOFTMAX = "normalises along one axis"
    UNSQUEEZE = "adds an axis of size 1"
    SQUEEZE = "drops axes of size 1"
    SPLIT = "cuts along one axis"
    INDEX = "indexes"
    SELECT = "picks entries of an axis by an index buffer"
    EXPAND = "repeats axes of size 1"
    SHAPE = "reads a shape"
    INERT = "reads nothing that removal changes"
    BARRIER = "anything else"


MIXING_MODULES: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
BATCH_NORMS: tuple[type[nn.Module], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
INSTANCE_NORMS: tuple[type[nn.Module], ...] = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
POINTWISE_MODULES = (
    "ReLU ReLU6 LeakyReLU ELU CELU SELU GELU SiLU Mish Sigmoid Tanh Hardswish Hardsigmoid Hardtanh Softplus Softsign "
    "Softshrink Hardshrink Tanhshrink LogSigmoid Threshold RReLU Identity Dropout Dropout1d Dropout2d Dropout3d "
    "AlphaDropout FeatureAlphaDropout"
).split()
MAX_POOLS = tuple(getattr(nn, f"{kind}{d}d") for kind in ("MaxPool", "AdaptiveMaxPool") for d in (1, 2, 3))
AVERAGE_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
SPATIAL_MODULES = (
    "AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d LPPool1d LPPool2d Upsample UpsamplingNearest2d "
    "UpsamplingBilinear2d ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d "
    "ReplicationPad3d ZeroPad1d ZeroPad2d ZeroPad3d ConstantPad1d ConstantPad2d ConstantPad3d CircularPad1d "
    "CircularPad2d CircularPad3d"
).split()

_POINTWISE_NAMES = (
    "relu relu6 leaky_relu elu celu selu gelu silu mish sigmoid tanh hardswish hardsigmoid hardtanh softplus softsign "
    "softshrink hardshrink tanhshrink logsigmoid threshold rrelu dropout dropout1d dropout2d dropout3d alpha_dropout "
    "feature_dropout feature_alpha_dropout abs neg exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal "
    "sin cos tan atan erf sign floor ceil round trunc clamp clamp_min clamp_max clip pow float_power add sub subtract "
    "rsub mul multiply div divide true_divide truediv floor_divide floordiv mod remainder fmod maximum minimum where "
    "lerp addcmul addcdiv eq ne gt ge lt le logical_and logical_or logical_not masked_fill nan_to_num positive pos "
    "negative absolute xlogy atan2 logaddexp hypot copysign isnan isfinite and_ or_ invert"
).split()
_POINTWISE_METHODS = "float double half bfloat16 to type type_as contiguous clone detach cpu cuda".split()
_SPATIAL_NAMES = (
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d lp_pool1d lp_pool2d interpolate "
    "upsample"
).split()
_OTHERS: dict[Kind, str] = {
    Kind.CONCAT: "cat concat concatenate",
    Kind.FLATTEN: "flatten",
    Kind.UNFLATTEN: "unflatten",
    Kind.PERMUTE: "permute transpose swapaxes swapdims movedim moveaxis",
    Kind.REDUCE: "mean sum amax amin std var",
    Kind.SOFTMAX: "softmax log_softmax softmin",
    Kind.UNSQUEEZE: "unsqueeze",
    Kind.SQUEEZE: "squeeze",
    Kind.SPLIT: "split chunk tensor_split",
    Kind.SELECT: "index_select",
    Kind.PAD: "pad",
    Kind.EXPAND: "expand expand_as",
}


def _function_table() -> tuple[dict[object, Kind], dict[str, Kind]]:
    functions: dict[object, Kind] = {operator.getitem: Kind.INDEX, torch._assert: Kind.INERT}
    methods: dict[str, Kind] = {"size": Kind.SHAPE, "dim": Kind.INERT, "ndimension": Kind.INERT}
    named = [(Kind.POINTWISE, _POINTWISE_NAMES), (Kind.SPATIAL, _SPATIAL_NAMES)]
    named += [(kind, names.split()) for kind, names in _OTHERS.items()]
    for kind, names in named:
        for name in names:
            for space in (torch, F, operator):
                if hasattr(space, name):
                    functions[getattr(space, name)] = kind
            if hasattr(torch.Tensor, name):
                methods[name] = kind
    methods.update(dict.fromkeys(_POINTWISE_METHODS, Kind.POINTWISE))
    return functions, methods


_FUNCTIONS, _METHODS = _function_table()
_POINTWISE_TYPES = {getattr(nn, name) for name in POINTWISE_MODULES}
_SPATIAL_TYPES = {getattr(nn, name) for name in SPATIAL_MODULES if hasattr(nn, name)} | set(AVERAGE_POOLS)
_INERT_ATTRIBUTES = ("dtype", "device", "ndim", "requires_grad", "is_cuda", "layout")


def module_kind(module: nn.Module) -> Kind:
    """Kind of a leaf module, by its exact type: a subclass may compute something else.

    Args:
        module: a module that tracing kept whole.

    Returns:
        its kind; `Kind.BARRIER` for unknown types and for modules that carry hooks.

    Example:
        >>> module_kind(nn.ReLU()).name, module_kind(nn.LayerNorm(4)).name
        ('POINTWISE', 'BARRIER')
    """
    kind = type(module)
    if module._forward_hooks or module._forward_pre_hooks:
        return Kind.BARRIER
    if kind in MIXING_MODULES:
        return Kind.MIXING
    if kind in BATCH_NORMS or kind in INSTANCE_NORMS or kind is nn.PReLU:
        return Kind.PER_CHANNEL
    if kind in _POINTWISE_TYPES:
        return Kind.POINTWISE
    if kind in MAX_POOLS:
        return Kind.BARRIER if getattr(module, "return_indices", False) else Kind.SPATIAL
    if kind in _SPATIAL_TYPES:
        return Kind.SPATIAL
    if kind is nn.Flatten:
        return Kind.FLATTEN
    if kind in (nn.Softmax, nn.LogSoftmax, nn.Softmin):
        return Kind.SOFTMAX
    return Kind.BARRIER


def kind_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> Kind:
    """Kind of a call in a traced graph.

    Args:
        node: a `call_module`, `call_function` or `call_method` node.
        modules: name -> module, as `dict(graph_module.named_modules())`.

    Returns:
        its kind; `Kind.BARRIER` where the operation is not in the table.
    """
    if node.op == "call_module":
        return module_kind(modules[str(node.target)])
    if node.op == "call_method":
        return _METHODS.get(str(node.target), Kind.BARRIER)
    if node.op == "call_function":
        if node.target is getattr:
            name = node.args[1]
            return Kind.SHAPE if name == "shape" else Kind.INERT if name in _INERT_ATTRIBUTES else Kind.BARRIER
        if argument(node, 99, "return_indices", False):
            return Kind.BARRIER
        if str(getattr(node.target, "__name__", "")) == "_assert_is_none":
            return Kind.INERT
        return _FUNCTIONS.get(node.target, Kind.BARRIER)
    return Kind.BARRIER


def argument(node: fx.Node, position: int, name: str, default: object = None) -> object:
    """Argument of a call, given by position or by name.

    Args:
        node: the call.
        position: place among the positional arguments (0 is the input itself).
        name: its keyword.
        default: what the operation takes when it is not given.

    Returns:
        the value, possibly a `Node`.
    """
    if name in node.kwargs:
        return node.kwargs[name]
    return node.args[position] if len(node.args) > position else default


def source_of(node: fx.Node) -> fx.Node | None:
    """First tensor argument of a call (`input`), or None.

    Args:
        node: the call.

    Returns:
        the node that computes it.
    """
    first = node.args[0] if node.args else node.kwargs.get("input", node.kwargs.get("x"))
    return first if isinstance(first, fx.Node) else None


def name_of(node: fx.Node) -> str:
    """Bare name of the called function or method, e.g. 'relu'; '' for modules.

    Args:
        node: the call.

    Returns:
        the name without its namespace.
    """
    if node.op == "call_method":
        return str(node.target)
    return str(getattr(node.target, "__name__", "")) if node.op == "call_function" else ""
