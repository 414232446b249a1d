"""Low rank: convolutions, linear layers and attention projections become two smaller layers each.

Wen, Xu, Wu, Wang, Chen, Li: Coordinating Filters for Faster Deep Neural Networks, ICCV 2017, section 3.1. N filters
that lie close to K directions are K basis filters and their combinations:

    conv(N filters) ~ conv(K filters, same stride and padding, no bias), then conv 1 x 1 (N x K, with the bias)

Departs from the paper: the ratio is of the squared norm for SVD too, as it is for PCA; layers where two launches are
predicted to take no less time are left whole; separable filters (Tai et al., ICLR 2016) are a choice per layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument, NothingChanged, RewriteError
from spokeshave.rewrites.low_rank_report import LowRankLayer, LowRankReport
from spokeshave.rewrites.rank_choice import Payoff, Plan, plan_of, ranks_as_given, ranks_by_error, ranks_within_budget
from spokeshave.rewrites.splittable_layers import (
    SplittableLayer,
    by_pattern,
    close_attention,
    open_attention,
    put_in_place,
    splittable_layers,
)
from spokeshave.rewrites.verification import probes_like, relative_error
from spokeshave.structures.example_inputs import as_inputs, batch_of
from spokeshave.structures.factorization import Basis
from spokeshave.structures.factorized_layer import FactorizedLayer
from spokeshave.structures.graph_tracing import private_copy
from spokeshave.structures.layer_calls import plain_transformers
from spokeshave.structures.layer_spectrum import Split, separable
from spokeshave.structures.projected_attention import ProjectedAttention, leave_fused_paths
from spokeshave.structures.roofline_model import MachineRates
from spokeshave.structures.separable_layer import SeparableLayer
from spokeshave.structures.split_work import NOMINAL_RATES, flops_of, seconds_of, split_launches, whole_launches
from spokeshave.timing import count_flops, evaluating, median_and_spread, time_in_turns

_PROBES = 2
_REPEATS, _BUDGET_S = 20, 1.0
"""Of each timed pair."""
_REASONS_SHOWN = 8


def low_rank(
    model: nn.Module,
    example: object,
    *,
    energy: float | None = None,
    max_error: float | None = None,
    ranks: Mapping[str, int] | None = None,
    flops: float | None = None,
    basis: Basis = Basis.PCA,
    split: Split | Mapping[str, Split] = Split.FILTERS,
    exclude: Sequence[str] = (),
    only_where_it_pays: bool = True,
    rates: MachineRates | None = None,
    measure: bool = False,
    seed: int = 0,
) -> tuple[nn.Module, LowRankReport]:
    """Split layers into a few basis filters and their combinations.

    Exactly one of `energy`, `max_error`, `ranks` and `flops` says how far. Patterns are those of `fnmatch`, on
    the names of layers; the projections of an attention `NAME` are `NAME.q_proj`, `k_proj`, `v_proj` and `out_proj`.

    Args:
        model: any module that runs on the example, traceable or not; it is not modified.
        example: input with its batch on axis 0, or a tuple of the arguments of forward. Predictions are for its batch.
        energy: share of the squared norm of each layer that is kept, 0..1, such as 0.95.
        max_error: share of the squared norm of each layer that is left out, 0..1: 1 - energy.
        ranks: pattern -> rank of each group; the last pattern that matches counts, layers that none matches stay whole.
        flops: share of the FLOPs of the whole network to keep, above 0, at most 1; spent where it saves most error.
        basis: how basis filters are found; k-means needs `ranks`.
        split: filters, or separable (k x 1 then 1 x k, by SVD), of all layers or by pattern; layers that have no
            columns and rows are split by filters.
        exclude: patterns of layers to leave whole. The paper leaves out the first and the shortcut convolutions of
            ResNets and the last linear layer.
        only_where_it_pays: leave a layer whole where its halves are predicted to take no less time.
        rates: of the machine; nominal ones if none, the same everywhere. `measure_roofline().rates()` has those
            of this machine.
        measure: time every split layer and the network in turns with their originals; it takes a second for each.
        seed: of k-means.

    Returns:
        A copy of the model with ordinary layers in place of the split ones, and the report. At full rank it computes
        the same as the original.

    Raises:
        NothingChanged: no layer was split; the message says why.
        InvalidArgument: not exactly one criterion, a number out of range, a pattern that matches nothing, weights that
            are not finite, or a model that fails on the example.
        RewriteError: the new network does not run.

    Source:
        Wen et al., ICCV 2017, section 3.1; Tai et al., ICLR 2016, section 3.

    Example:
        >>> net = nn.Sequential(nn.Linear(64, 64, bias=False))
        >>> _ = net[0].weight.data.copy_(torch.outer(torch.ones(64), torch.arange(64.0)))
        >>> small, report = low_rank(net, torch.zeros(1, 64), energy=0.95)
        >>> report.layers[0].rank, report.parameters_before, report.parameters_after
        (1, 4096, 128)
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgument(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    criteria = {"energy": energy, "max_error": max_error, "ranks": ranks, "flops": flops}
    given = [name for name, value in criteria.items() if value is not None]
    if len(given) != 1:
        raise InvalidArgument(f"expected one of {', '.join(criteria)}, got {' and '.join(given) or 'none'}")
    if basis is Basis.KMEANS and ranks is None:
        raise InvalidArgument(f"{given[0]}: k-means has no spectrum to choose ranks by; give ranks={{pattern: rank}}")
    inputs = as_inputs(example)
    reference = private_copy(model, plain=False)
    new, opened, refused = open_attention(private_copy(model, plain=False))
    layers = splittable_layers(new, inputs, refused)
    plans = _plans(layers, split, exclude)
    payoff = Payoff(rates or NOMINAL_RATES, only_where_it_pays)
    with evaluating(reference), plain_transformers():
        network_flops = float(_count_flops(reference, inputs))
    if ranks is not None:
        ranks_as_given(plans, by_pattern("ranks", [layer.name for layer in layers], ranks), payoff)
    elif flops is not None:
        ranks_within_budget(plans, flops, network_flops, payoff)
    else:
        limit = max_error if energy is None else _left_out(energy)
        assert limit is not None
        ranks_by_error(plans, limit, payoff)
    halves = {plan.layer.module: _split(plan, basis, seed) for plan in plans if plan.rank is not None}
    if not halves:
        raise NothingChanged(_why_nothing(plans))
    new = close_attention(put_in_place(new, halves), opened)
    leave_fused_paths(new, (FactorizedLayer, SeparableLayer, ProjectedAttention))
    batch = batch_of(inputs)
    rows = tuple(_row(plan, halves.get(plan.layer.module), batch, measure) for plan in plans)
    report = LowRankReport(
        rows,
        sum(parameter.numel() for parameter in reference.parameters()),
        sum(parameter.numel() for parameter in new.parameters()),
        network_flops / batch,
        0.0,
        _predicted(plans, payoff.rates),
        0.0,
        notes=_notes(plans, split),
    )
    return new, _compared(report, new, reference, inputs, measure)


def _left_out(energy: float) -> float:
    if not 0 <= energy <= 1:
        raise InvalidArgument(f"energy: expected a share of the squared norm, 0..1, got {energy}")
    return 1 - energy


def _plans(layers: Sequence[SplittableLayer], split: Split | Mapping[str, Split], exclude: Sequence[str]) -> list[Plan]:
    names = [layer.name for layer in layers]
    ways = dict.fromkeys(names, split) if isinstance(split, Split) else by_pattern("split", names, split)
    for name in by_pattern("exclude", names, dict.fromkeys(exclude, True)):
        layer = layers[names.index(name)]
        layer.why_whole = layer.why_whole or "it was excluded"
    plans = []
    for layer in layers:
        way = ways.get(layer.name, Split.FILTERS)
        plans.append(plan_of(layer, way if separable(layer.module) else Split.FILTERS))
    return plans


def _split(plan: Plan, basis: Basis, seed: int) -> FactorizedLayer | SeparableLayer:
    name, module, rank = plan.layer.name, plan.layer.module, plan.rank
    assert rank is not None
    if plan.split is Split.SEPARABLE:
        assert isinstance(module, nn.Conv2d)
        made = SeparableLayer.of(name, module, rank)
    else:
        made = FactorizedLayer.of(name, module, rank, basis, seed)
    weight = module.get_parameter("weight")
    if weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous():
        made.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return made


def _row(plan: Plan, halves: FactorizedLayer | SeparableLayer | None, batch: int, measure: bool) -> LowRankLayer:
    module, calls = plan.layer.module, plan.layer.seen.calls
    plain = module._parameters.get("weight") is not None and bool(calls)
    before = flops_of(whole_launches(module, calls)) / batch if plain else 0.0
    row = LowRankLayer(
        plan.layer.name, type(module).__name__, "", getattr(module, "groups", 1), None, plan.full_rank, 0.0,
        before, before, plan.predicted_speedup, why_whole=plan.why_whole,
    )  # fmt: skip
    if halves is None or plan.rank is None:
        return row
    old, new = module.get_parameter("weight").detach().double(), halves.product(torch.float64)
    norm = float(old.square().sum())
    error = float((old - new).square().sum()) / norm if norm else 0.0
    after = flops_of(split_launches(module, calls, plan.rank, plan.split)) / batch
    row = replace(row, split=plan.split.value, rank=plan.rank, error=error, flops_after=after)
    if not measure:
        return row
    shape = max((call.entering for call in calls), key=lambda entering: torch.Size(entering).numel())
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(module.get_parameter("weight"))
    ratio, spread = _in_turns(module, halves, (x,))
    return replace(row, measured_speedup=ratio, measured_spread=spread)


def _in_turns(before: nn.Module, after: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[float, float]:
    with evaluating(before), evaluating(after):
        first, second = time_in_turns([before, after], inputs, torch.get_num_threads(), _REPEATS, _BUDGET_S)
    return median_and_spread([a / b for a, b in zip(first, second, strict=True)])


def _compared(
    report: LowRankReport, new: nn.Module, reference: nn.Module, inputs: tuple[object, ...], measure: bool
) -> LowRankReport:
    """The report with the error of the whole network, its FLOPs and, where asked for, its time."""
    probes = probes_like(inputs, count=_PROBES)
    with evaluating(new), evaluating(reference), plain_transformers(), torch.no_grad():
        with torch.random.fork_rng(devices=[]):
            wanted = [reference(*probe) for probe in probes]
        try:
            with torch.random.fork_rng(devices=[]):
                got = [new(*probe) for probe in probes]
        except Exception as error:
            raise RewriteError(
                f"the network with split layers does not run: {type(error).__name__}: {error}. Code outside of a layer "
                f"reads its weight or sizes; leave that layer out: exclude=('NAME',), of "
                f"{', '.join(layer.name for layer in report.split_layers)}"
            ) from error
        worst = max(relative_error(a, b) for a, b in zip(got, wanted, strict=True))
        after = float(_count_flops(new, inputs)) / batch_of(inputs)
    report = replace(report, max_relative_error=worst, flops_after=after)
    if measure:
        tensors = tuple(value for value in inputs if isinstance(value, Tensor))
        if len(tensors) == len(inputs):
            ratio, spread = _in_turns(reference, new, tensors)
            report = replace(report, measured_speedup=ratio, measured_spread=spread)
        else:
            note = "the whole network was not timed: the example holds other arguments than tensors"
            report = replace(report, notes=(*report.notes, note))
    return report


def _count_flops(model: nn.Module, inputs: tuple[object, ...]) -> int:
    with torch.random.fork_rng(devices=[]):
        return count_flops(model, inputs)[1]  # pyright: ignore[reportArgumentType]


def _predicted(plans: Sequence[Plan], rates: MachineRates) -> float:
    before = after = 0.0
    for plan in plans:
        module, calls = plan.layer.module, plan.layer.seen.calls
        if not calls or module._parameters.get("weight") is None:
            continue
        whole = seconds_of(whole_launches(module, calls), rates)
        before += whole
        after += whole if plan.rank is None else seconds_of(split_launches(module, calls, plan.rank, plan.split), rates)
    return before / after


def _notes(plans: Sequence[Plan], split: Split | Mapping[str, Split]) -> tuple[str, ...]:
    if split is Split.FILTERS:
        return ()
    names = [p.layer.name for p in plans if p.rank is not None and not separable(p.layer.module)]
    return (f"split by filters, as they have no columns and rows: {', '.join(names)}",) if names else ()


def _why_nothing(plans: Sequence[Plan]) -> str:
    if not plans:
        return "no layer to split: the model has no convolution, linear layer or attention"
    reasons = [f"{plan.layer.name or 'the model'}: {plan.why_whole}" for plan in plans]
    more = [f"and {len(reasons) - _REASONS_SHOWN} more layers"] if len(reasons) > _REASONS_SHOWN else []
    return (
        "nothing was split: "
        + "; ".join(reasons[:_REASONS_SHOWN] + more)
        + ". Allow a larger error, pull the filters together in training first, or pass only_where_it_pays=False"
    )
