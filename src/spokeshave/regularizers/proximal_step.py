"""Proximal step of the group lasso: the shrinkage that makes groups exactly zero, right under momentum and under Adam.

    argmin_w  sum_i d_i (w_i - u_i)^2 / (2 lr) + lambda ||w||

Parikh and Boyd, Proximal Algorithms, 2014, section 6.5.1 for d = 1 (block soft threshold); Yun et al., Adaptive
Proximal Gradient Methods for Structured Neural Networks, NeurIPS 2021, for the metric d of an adaptive optimizer.
A fixed point of (optimizer step, proximal step) has gradient = -lambda w/||w||, the optimum of loss + penalty.
Heavy-ball momentum m moves the weight by lr * gradient / (1 - m) in its steady state, so lambda is scaled likewise.
Departs from the paper: SSL itself uses a sub-gradient and a threshold; see `group_lasso`.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from spokeshave.errors import InvalidArgument
from spokeshave.structures.groups import Grouping

_NEWTON_STEPS = 12  # the secular equation below is nearly linear: about 4 steps reach float32 precision


def step_metric(optimizer: Optimizer, parameter: Tensor) -> tuple[float, Tensor | None]:
    """The step length and the diagonal metric with which an optimizer just moved a parameter.

    Args:
        optimizer: SGD (with or without momentum), Adam, AdamW, RMSprop or Adagrad.
        parameter: one of its parameters.

    Returns:
        (step, metric): the parameter moved by step * direction / metric; metric None stands for ones.

    Raises:
        InvalidArgument: for another optimizer, or a parameter that it does not hold.
    """
    group = next((g for g in optimizer.param_groups if any(p is parameter for p in g["params"])), None)
    if group is None:
        raise InvalidArgument("the optimizer does not hold this parameter")
    rate, state = float(group["lr"]), optimizer.state.get(parameter, {})
    if isinstance(optimizer, SGD):
        return rate * (1 - group["dampening"] if group["momentum"] else 1) / (1 - group["momentum"]), None
    if not state:
        return rate, None
    if isinstance(optimizer, (Adam, AdamW)):
        second = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
        correction = 1 - group["betas"][1] ** float(state["step"])
        return rate, (second / correction).sqrt() + group["eps"]
    if isinstance(optimizer, RMSprop):
        average = state["square_avg"]
        if group["centered"]:
            average = average - state["grad_avg"] ** 2
        return rate / (1 - group["momentum"]), average.sqrt() + group["eps"]
    if isinstance(optimizer, Adagrad):
        rate = rate / (1 + (float(state["step"]) - 1) * group["lr_decay"])
        return rate, state["sum"].sqrt() + group["eps"]
    raise InvalidArgument(
        f"the proximal solver knows SGD, Adam, AdamW, RMSprop and Adagrad, got {type(optimizer).__name__}; "
        "use solver=Solver.SUBGRADIENT, which works with any optimizer"
    )


def shrink_groups(
    weight: Float[Tensor, "..."],
    grouping: Grouping,
    thresholds: Float[Tensor, " groups"],
    metric: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "..."]:
    """Block soft threshold of every group of a weight.

    Args:
        weight: u of the equation above, after the optimizer's step.
        grouping: how it is cut.
        thresholds: step * lambda of each group, at least 0.
        metric: d of the equation above, of the weight's shape and positive; None for ones.

    Returns:
        The new weight; groups whose norm ||d u|| is at most the threshold are exactly zero.

    Example:
        >>> from spokeshave.structures.groups import GroupKind
        >>> rows = Grouping((2, 2), GroupKind.FILTER)
        >>> shrink_groups(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), rows, torch.tensor([1.0, 1.0])).tolist()
        [[2.4000000953674316, 3.200000047683716], [0.0, 0.0]]
    """
    if metric is None:
        norms = grouping.norms(weight)
        factors = torch.where(norms > thresholds, 1 - thresholds / norms.clamp_min(1e-38), 0.0)
        return weight * grouping.spread(torch.where(thresholds > 0, factors, 1.0))
    scaled = weight * metric
    alive = (grouping.norms(scaled) > thresholds) | (thresholds == 0)
    kappa = grouping.spread(thresholds)
    # t = ||w|| solves sum_i (d_i u_i / (d_i t + kappa))^2 = 1. Newton on sum^(-1/2) - 1, concave and increasing,
    # started at t = 0, approaches from below; the first step is already the answer when d is constant over the group.
    length = torch.zeros_like(thresholds)
    for _ in range(_NEWTON_STEPS):
        inner = (metric * grouping.spread(length) + kappa).clamp_min(1e-30)
        total = grouping.sums((scaled / inner) ** 2).clamp_min(1e-30)
        slope = grouping.sums(scaled**2 * metric / inner**3).clamp_min(1e-30)  # -d total / dt, halved
        longer = (length + total * (total.sqrt() - 1) / slope).clamp_min(0.0)
        done = bool(((longer - length).abs() <= 1e-6 * longer + 1e-12)[alive].all())
        length = longer
        if done:
            break
    inner = (metric * grouping.spread(length) + kappa).clamp_min(1e-30)
    shrunk = torch.where(kappa > 0, scaled * grouping.spread(length) / inner, weight)
    return shrunk * grouping.spread(alive.to(weight.dtype))
