"""Bias tuning: after the weights were quantized, the biases make up for the shift that this gave every neuron.

Wang, Wen, Song, Li: One-level Precision Synapses, ASP-DAC 2017: a changed weight shifts neuron j by
sum_i dW_ji x_i; biases are no synapses and keep their precision, so they take it back:

    db_j = -E[sum_i dW_ji x_i]        or: train the biases alone, with the weights frozen

Departs from the paper: the closed form goes layer by layer, so that it also takes back what earlier layers let through.
"""

import copy
import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from spokeshave.errors import InvalidArgument, NothingChanged, TrainingDiverged
from spokeshave.structures.groups import CONVOLUTIONS

NORMALIZATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Data = Iterable[tuple[Tensor, Tensor | None]]
"""Batches of (inputs, labels), to be gone through several times; labels are None where only a reference is followed."""


@dataclass(frozen=True)
class TunedBias:
    """One layer.

    Attributes:
        name: of the layer whose bias it is.
        neurons: number of biases.
        mean_change: mean |new - old|.
        max_change: largest |new - old|.
    """

    name: str
    neurons: int
    mean_change: float
    max_change: float


@dataclass(frozen=True)
class BiasReport:
    """What a call of `tune_biases` changed.

    Attributes:
        layers: whose biases were tuned, in the order in which they run.
        untouched: layers without a bias, which no batch normalization follows.
        loss_before, loss_after: mean cross entropy on the data, in nats; None without labels.
    """

    layers: tuple[TunedBias, ...]
    untouched: tuple[str, ...]
    loss_before: float | None
    loss_after: float | None

    def to_dict(self) -> dict[str, object]:
        """The report as plain dicts, lists, numbers and strings."""
        plain: dict[str, object] = dataclasses.asdict(self)
        return plain | {
            "layers": [dataclasses.asdict(layer) for layer in self.layers], "untouched": list(self.untouched),
        }  # fmt: skip

    def table(self) -> Table:
        """The report as a table for the terminal."""
        known = self.loss_before is not None and self.loss_after is not None
        loss = f": loss {self.loss_before:.4g} -> {self.loss_after:.4g}" if known else ""
        table = Table(title=f"biases tuned{loss}")
        for heading in ("layer", "biases", "mean change", "largest"):
            table.add_column(heading, justify="left" if heading == "layer" else "right")
        for one in self.layers:
            table.add_row(one.name, f"{one.neurons:,}", f"{one.mean_change:.3g}", f"{one.max_change:.3g}")
        return table


def tune_biases(
    model: nn.Module,
    data: Data,
    *,
    reference: nn.Module | None = None,
    epochs: int = 0,
    learning_rate: float = 1e-3,
) -> tuple[nn.Module, BiasReport]:
    """Tune the biases of a classifier whose weights stay as they are.

    Biases of convolutions and linear layers are tuned; where such a layer has none and a batch normalization takes its
    output, the normalization's. Layers with neither stay as they are (the first part of a factorized layer: the bias of
    the second takes its shift back as well). Networks run as in evaluation, so that statistics of normalizations stay.

    Args:
        model: it is not modified.
        data: batches of (inputs, labels) that can be gone through again and again (a list, a DataLoader, `Batches`).
        reference: the network before its weights were changed, with the same names of layers. With it, layer by layer
            in order, biases are shifted so that the mean input of every neuron over the data is the reference's; one
            pass over the data for each layer. Labels play no part; they may be None.
        epochs: passes over the data in which, after that, the biases alone are trained (Adam, cross entropy).
        learning_rate: of these, positive; it falls to 0 in a line.

    Returns:
        a copy of the model with new biases, and the report.

    Raises:
        NothingChanged: no layer has a bias to tune.
        InvalidArgument: neither a reference nor epochs are given, the data is empty or can be gone through only once,
            labels are missing that epochs need, or the reference lacks a layer or does not run it.
        TrainingDiverged: the loss, or a mean that a bias is to make up for, is not finite.

    Example:
        >>> net, old = nn.Sequential(nn.Linear(1, 1)), nn.Sequential(nn.Linear(1, 1))
        >>> for network, weight in ((net, 1.0), (old, 1.5)):
        ...     _ = network[0].weight.data.fill_(weight), network[0].bias.data.zero_()
        >>> new, _ = tune_biases(net, [(torch.tensor([[1.0], [3.0]]), torch.zeros(2, dtype=torch.long))], reference=old)
        >>> new[0].bias.tolist()  # -E[(1 - 1.5) x] with E[x] = 2
        [1.0]
    """
    if (reference is None and not epochs) or epochs < 0 or not 0 < learning_rate < float("inf"):
        raise InvalidArgument(
            f"give a reference, or epochs of at least 1 and a positive learning_rate, got {epochs} and {learning_rate}"
        )
    if iter(data) is data:
        raise InvalidArgument("data can be gone through only once: pass a list of batches, a DataLoader or Batches")
    first = next(iter(data), None)
    if first is None:
        raise InvalidArgument("data holds no batches")
    if epochs and first[1] is None:
        raise InvalidArgument("epochs need labels: give batches of (inputs, labels), or a reference and no epochs")
    new = copy.deepcopy(model).eval()
    tuned, untouched = biased_layers(new, first[0])
    if not tuned:
        raise NothingChanged("nothing to tune: no convolution or linear layer has a bias or a batch normalization")
    modules = dict(new.named_modules())
    before = {name: modules[name].get_parameter("bias").detach().clone() for name in tuned}
    loss_before = _loss(new, data)
    if reference is not None:
        _match_means(new, copy.deepcopy(reference).eval(), tuned, data)
    if epochs:
        _train(new, [modules[name].get_parameter("bias") for name in tuned], data, epochs, learning_rate)
    rows = []
    for name in tuned:
        change = (modules[name].get_parameter("bias").detach() - before[name]).abs().double()
        rows.append(TunedBias(name, change.numel(), float(change.mean()), float(change.max())))
    report = BiasReport(tuple(rows), untouched, loss_before, _loss(new, data))
    new.train(model.training)
    for (_, module), (_, old) in zip(new.named_modules(), model.named_modules(), strict=True):
        module.training = old.training
    return new, report


def biased_layers(model: nn.Module, inputs: Tensor) -> tuple[list[str], tuple[str, ...]]:
    """Modules whose biases shift the outputs of convolutions and linear layers, in the order in which they run.

    Args:
        model: in eval mode.
        inputs: one batch; the model is run on it.

    Returns:
        (modules with a bias: the layer itself, or the batch normalization after it; layers without either).
    """
    names = {module: name for name, module in model.named_modules()}
    tuned: list[str] = []
    waiting: dict[str, Tensor] = {}
    handles = []

    def after_layer(module: nn.Module, _: object, output: Tensor) -> None:
        name = names[module]
        if module._parameters.get("bias") is None:
            waiting[name] = output
        elif name not in tuned:
            tuned.append(name)

    def before_normalization(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        fed = [name for name, output in waiting.items() if arguments and output is arguments[0]]
        if fed and module._parameters.get("bias") is not None:
            del waiting[fed[0]]
            if names[module] not in tuned:
                tuned.append(names[module])

    for module in model.modules():
        if isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            handles.append(module.register_forward_hook(after_layer))
        elif isinstance(module, NORMALIZATIONS):
            handles.append(module.register_forward_pre_hook(before_normalization))
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return tuned, tuple(waiting)


def only_biases(model: nn.Module, names: Sequence[str]) -> None:
    """Let nothing but the biases of these modules be trained, in place.

    Args:
        model: any module.
        names: from `biased_layers`.
    """
    model.requires_grad_(False)
    modules = dict(model.named_modules())
    for name in names:
        modules[name].get_parameter("bias").requires_grad_(True)


@torch.no_grad()
def _match_means(new: nn.Module, reference: nn.Module, tuned: Sequence[str], data: Data) -> None:
    modules, originals = dict(new.named_modules()), dict(reference.named_modules())
    if missing := [name for name in tuned if name not in originals]:
        raise InvalidArgument(f"the reference has no layer called {', '.join(missing)}")
    # All means of the reference come from one pass; those of the new network change with every bias before them.
    wanted = _means(reference, {name: originals[name] for name in tuned}, data)
    if idle := [name for name in tuned if name not in wanted]:
        raise InvalidArgument(f"the reference has layers that it does not run on the data: {', '.join(idle)}")
    for name in tuned:
        bias = modules[name].get_parameter("bias")
        found = _means(new, {name: modules[name]}, data)[name]
        if wanted[name].shape != found.shape:
            raise InvalidArgument(
                f"{name}: {len(found)} outputs, but {len(wanted[name])} in the reference; "
                "pass the network as it was before its weights were changed"
            )
        if not bool((wanted[name] - found).isfinite().all()):
            raise TrainingDiverged(
                f"{name}: its mean outputs are not finite; do the model and the reference have finite weights?"
            )
        bias.add_((wanted[name] - found).to(bias))


def _means(network: nn.Module, modules: dict[str, nn.Module], data: Data) -> dict[str, Tensor]:
    sums: dict[str, tuple[Tensor, int]] = {}
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            wide = output.double() if isinstance(module, nn.Linear) else output.double().movedim(1, -1)
            wide = wide.reshape(-1, wide.shape[-1])
            total, count = sums.get(name, (0.0, 0))
            sums[name] = (wide.sum(0) + total, count + len(wide))

        handles.append(module.register_forward_hook(hook))

    for name, module in modules.items():
        watch(name, module)
    try:
        for inputs, _ in data:
            network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: total / count for name, (total, count) in sums.items()}


@torch.enable_grad()
def _train(new: nn.Module, biases: Sequence[nn.Parameter], data: Data, epochs: int, learning_rate: float) -> None:
    trainable = {name: parameter.requires_grad for name, parameter in new.named_parameters()}
    new.requires_grad_(False)
    for bias in biases:
        bias.requires_grad_(True)
    optimizer = torch.optim.Adam(biases, lr=learning_rate)
    steps = epochs * sum(1 for _ in data)
    fade = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(epochs):
        for inputs, labels in data:
            assert labels is not None
            optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(new(inputs).float(), labels)
            if not bool(torch.isfinite(loss)):
                raise TrainingDiverged(f"the loss became {float(loss)} while biases were trained; lower learning_rate")
            loss.backward()
            optimizer.step()
            fade.step()
    for name, parameter in new.named_parameters():
        parameter.requires_grad_(trainable[name])
        parameter.grad = None


@torch.no_grad()
def _loss(network: nn.Module, data: Data) -> float | None:
    total, count = 0.0, 0
    for inputs, labels in data:
        if labels is None:
            return None
        total += float(functional.cross_entropy(network(inputs).float(), labels, reduction="sum"))
        count += len(labels)
    if not math.isfinite(total):
        raise TrainingDiverged(f"the loss on the data is {total}: are weights and data finite?")
    return total / count
