"""Squeeze: after removal, skip the zero rows and columns that are left inside each layer, where that pays.

Three forms are compared by a prediction of their time: the dense layer as it is, a dense layer on fewer channels, a
smaller kernel window and fewer filters (`CroppedConv2d`), and a gather of single columns (`SqueezedConv2d`).

The prediction, in microseconds for a batch of 4 on one core, was calibrated against medians of torch 2.13 on an AVX-512
server core, for LeNet conv2, ConvNet conv2 and AlexNet conv2 to conv5 patterns:

    dense     35 (15 for a 1 x 1 kernel) + 4 * multiplications / 60 000
    cropped   dense of the smaller layer + (8 + 4 * copied elements / 1000) for each copy
    gathered  12 + 3.5 * kernel positions + 4 * (patch elements / 300 + multiplications / 60 000)

A copying form is taken when its prediction is at most 0.75 of the dense one. Measured crossings: LeNet conv2 (50 x 500)
gains up to about 30 scattered columns; AlexNet conv3 to conv5 patterns (14 to 23 % of the columns kept) run 2 to 4
times faster; AlexNet conv2 (37 % kept, 27 x 27 positions) does not gain and stays dense.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from spokeshave.rewrites.constant_input import ConstantInput, PositionBias
from spokeshave.rewrites.squeezed_convolution import CroppedConv2d, SqueezedConv2d, padding_of
from spokeshave.rewrites.squeezed_linear import SqueezedLinear

Mask = NDArray[np.bool_]
GAIN = 0.75
BATCH = 4
MOST_GROUPS = 8


@dataclass(frozen=True)
class LoweredMasks:
    """Nonzero structure of a convolution's lowered matrix.

    Attributes:
        rows: (out,) filters with a nonzero weight.
        columns: (groups, in/groups * kh * kw) columns with a nonzero weight, by conv group.
    """

    rows: Mask
    columns: Mask


def lowered_masks(weight: torch.Tensor, groups: int) -> LoweredMasks:
    """Nonzero rows and columns of a weight, columns for each conv group.

    Args:
        weight: (out, in/groups, *kernel) or (out, in).
        groups: conv groups.

    Returns:
        the masks.

    Example:
        >>> lowered_masks(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), 1).rows.tolist()
        [True, False]
    """
    nonzero = weight.detach().ne(0).reshape(groups, weight.shape[0] // groups, -1).cpu().numpy()
    return LoweredMasks(np.asarray(nonzero.any(axis=2)).reshape(-1), np.asarray(nonzero.any(axis=1)))


def dense_time(multiplications: float, taps: int) -> float:
    """Predicted time of a dense convolution, in microseconds for a batch of 4.

    Args:
        multiplications: for one image.
        taps: kernel positions; a 1 x 1 kernel has less to set up.

    Returns:
        the prediction.

    Example:
        >>> dense_time(60_000, 9), dense_time(60_000, 1)
        (39.0, 19.0)
    """
    return (35.0 if taps > 1 else 15.0) + BATCH * multiplications / 60_000


def copy_time(elements: float) -> float:
    """Predicted time of one copy, in microseconds for a batch of 4.

    Args:
        elements: copied numbers for one image.

    Returns:
        the prediction.
    """
    return 8.0 + BATCH * elements / 1000


def squeeze_layers(graph: fx.GraphModule) -> list[str]:
    """Replace layers of a shape-annotated graph by squeezed forms where the prediction says that they are faster.

    Args:
        graph: graph whose tensor nodes carry `meta["shape"]`; modules are replaced in place.

    Returns:
        names of the layers that were replaced.
    """
    squeezed: list[str] = []
    targets = [str(node.target) for node in graph.graph.nodes if node.op == "call_module"]
    read = {str(node.target).rpartition(".")[0] for node in graph.graph.nodes if node.op == "get_attr"}
    for node in graph.graph.nodes:
        if node.op != "call_module" or targets.count(str(node.target)) > 1 or str(node.target) in read:
            continue
        name = str(node.target)
        module = graph.get_submodule(name)
        source = node.all_input_nodes[0]
        replacement: nn.Module | None = None
        holder, attribute = graph.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        if isinstance(module, (ConstantInput, PositionBias)):
            holder, attribute, module = module, "layer", module.get_submodule("layer")
        if module._forward_hooks or module._forward_pre_hooks:
            continue
        if type(module) is nn.Linear:
            replacement = squeeze_linear(module)
        elif type(module) is nn.Conv2d and len(source.meta["shape"]) == 4:
            replacement = squeeze_convolution(module, source.meta["shape"][2:], node.meta["shape"][2:])
        if replacement is not None:
            replacement.train(module.training)
            setattr(holder, attribute, replacement)
            squeezed.append(name)
    return squeezed


def squeeze_linear(layer: nn.Linear) -> SqueezedLinear | None:
    """A linear layer that reads only used features, or None where that would not pay.

    Args:
        layer: the layer.

    Returns:
        the smaller layer; picking costs about 10 microseconds, a weight about 1/4000.
    """
    used = lowered_masks(layer.weight, 1).columns[0]
    saved = int((~used).sum()) * layer.out_features
    if used.all() or not used.any() or saved / 4000 < 10 or saved < 0.1 * layer.weight.numel():
        return None
    return SqueezedLinear(layer, used)


def squeeze_convolution(
    layer: nn.Conv2d, input_size: tuple[int, ...], output_size: tuple[int, ...]
) -> SqueezedConv2d | CroppedConv2d | None:
    """The predicted fastest exact form of a convolution, or None where the dense layer is.

    Args:
        layer: a dense convolution, possibly with zero rows and columns.
        input_size: height and width of its input.
        output_size: height and width of its output.

    Returns:
        a module that computes the same, or None.
    """
    even = layer.padding != "same" or all(
        d * (k - 1) % 2 == 0 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)
    )
    masks = lowered_masks(layer.weight, layer.groups)
    if layer.padding_mode != "zeros" or not even or not masks.rows.any() or layer.groups > MOST_GROUPS:
        return None
    plane, out_plane = int(np.prod(input_size)), int(np.prod(output_size))
    dense = dense_time(layer.weight.numel() * out_plane, _taps(layer))
    forms: list[_Form] = []
    for rows in (None,) if masks.rows.all() else (None, masks.rows):
        scatter = 0.0 if rows is None else copy_time(layer.out_channels * out_plane)
        if rows is None or layer.groups == 1:
            forms.append(_cropped_form(layer, masks, rows, plane, out_plane, scatter))
        if masks.columns.any(axis=1).all() and not masks.columns.all():
            forms.append(_gathered_form(layer, masks, rows, out_plane, scatter))
    paying = [form for form in forms if form.time < (GAIN * dense if form.copies else dense)]
    return min(paying, key=lambda form: form.time).make() if paying else None


@dataclass(frozen=True)
class _Form:
    time: float
    copies: bool
    make: Callable[[], SqueezedConv2d | CroppedConv2d]


def _cropped_form(
    layer: nn.Conv2d, masks: LoweredMasks, rows: Mask | None, plane: int, out_plane: int, scatter: float
) -> _Form:
    channels, window = _bounding_box(layer, masks)
    taps = (window[1] - window[0]) * (window[3] - window[2])
    filters = layer.out_channels if rows is None else int(rows.sum())
    weights = filters * taps * int(channels.sum()) // layer.groups
    moves = int(not channels.all()) + int(not _is_symmetric(layer, window))
    time = dense_time(weights * out_plane, taps) + moves * copy_time(int(channels.sum()) * plane) + scatter
    time = time if weights < layer.weight.numel() else float("inf")
    return _Form(time, bool(moves or scatter), lambda: CroppedConv2d(layer, channels, window, rows))


def _gathered_form(layer: nn.Conv2d, masks: LoweredMasks, rows: Mask | None, out_plane: int, scatter: float) -> _Form:
    windows = sum(len(np.unique(np.flatnonzero(mask) % _taps(layer))) for mask in masks.columns)
    kept = masks.columns.sum(axis=1)
    filters = np.full(layer.groups, layer.out_channels // layer.groups)
    if rows is not None:
        filters = rows.reshape(layer.groups, -1).sum(axis=1)
    products, elements = int((kept * filters).sum()) * out_plane, int(kept.sum()) * out_plane
    time = 12 + 3.5 * windows + BATCH * (elements / 300 + products / 60_000) + scatter
    return _Form(time, True, lambda: SqueezedConv2d(layer, list(masks.columns), rows))


def _taps(layer: nn.Conv2d) -> int:
    return layer.kernel_size[0] * layer.kernel_size[1]


def _bounding_box(layer: nn.Conv2d, masks: LoweredMasks) -> tuple[Mask, tuple[int, int, int, int]]:
    """Used input channels (equally many in every conv group) and the used window of the kernel."""
    taps = masks.columns.reshape(layer.groups, -1, *layer.kernel_size)
    used = np.asarray(taps.any(axis=(2, 3)))
    most = int(used.sum(axis=1).max())
    for group in range(layer.groups):
        missing = most - int(used[group].sum())
        used[group, np.flatnonzero(~used[group])[:missing]] = True
    vertical, horizontal = np.flatnonzero(taps.any(axis=(0, 1, 3))), np.flatnonzero(taps.any(axis=(0, 1, 2)))
    window = (int(vertical[0]), int(vertical[-1]) + 1, int(horizontal[0]), int(horizontal[-1]) + 1)
    return used.reshape(-1), window


def _is_symmetric(layer: nn.Conv2d, window: tuple[int, int, int, int]) -> bool:
    (ph, pw), (dh, dw), (kh, kw) = padding_of(layer), layer.dilation, layer.kernel_size
    top, bottom, left, right = window
    vertical = top == kh - bottom and ph >= top * dh
    return vertical and left == kw - right and pw >= left * dw
