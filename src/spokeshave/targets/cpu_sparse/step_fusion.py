"""Step fusion: what follows a convolution or a linear layer becomes part of it.

Batch normalization is folded into the weights, rectification and the addition of a shortcut into the routine that
writes the sums, chains of elementwise steps into one pass over the memory.
"""

from dataclasses import replace

import numpy as np

from spokeshave.targets.cpu_sparse.network_steps import Chain, Convolve, Multiply, NetworkStep, NetworkSteps
from spokeshave.targets.cpu_sparse.plane_operations import Combine, PlaneScale, Rectify


def fuse(network: NetworkSteps) -> NetworkSteps:
    """Merge each elementwise step into the step before it, where nobody else reads what is between them.

    Args:
        network: as lowered; it is changed.

    Returns:
        the network.
    """
    uses: dict[str, int] = {}
    for step in network.steps:
        for value in step.inputs:
            uses[value] = uses.get(value, 0) + 1
    for name in network.outputs:
        uses[name] = 2  # a result stays as it is
    merged: list[NetworkStep] = []
    place: dict[str, int] = {}
    for step in network.steps:
        joined = _merge(merged, place, uses, step)
        if joined is None:
            place[step.output] = len(merged)
            merged.append(step)
        else:
            position, whole = joined
            del place[merged[position].output]
            merged[position] = whole
            place[whole.output] = position
    network.steps = merged
    return network


def _merge(
    steps: list[NetworkStep], place: dict[str, int], uses: dict[str, int], step: NetworkStep
) -> tuple[int, NetworkStep] | None:
    """A step as part of the one before it that nobody else reads; its position and the two as one."""
    if not isinstance(step, Chain) or len(step.steps) != 1:
        return None
    sources = [value for value in step.inputs if uses.get(value) == 1 and value in place]
    for value in sorted(sources, key=place.__getitem__, reverse=True):
        position = place[value]
        before = steps[position]
        others = tuple(other for other in step.inputs if other != value)
        if any(place.get(other, -1) >= position for other in others):
            continue  # what is added would not be there yet
        whole = _join(before, step, others)
        if whole is not None:
            return position, whole
    return None


def _join(before: NetworkStep, step: Chain, others: tuple[str, ...]) -> NetworkStep | None:
    (what,) = step.steps
    if isinstance(before, (Convolve, Multiply)) and isinstance(what, Rectify) and not before.rectify:
        return replace(before, rectify=True, output=step.output)
    if isinstance(before, (Convolve, Multiply)) and not before.rectify and len(before.inputs) == 1:
        if isinstance(what, PlaneScale):
            assert step.scales is not None
            factor, shift = step.scales.astype(np.float64).T
            return replace(
                before,
                weight=before.weight.scaled(factor),
                bias=(before.bias * factor + shift).astype(np.float32),
                output=step.output,
            )
        if isinstance(before, Convolve) and isinstance(what, Combine) and not what.multiply and len(others) == 1:
            return replace(before, inputs=(*before.inputs, *others), output=step.output)
    if isinstance(before, Chain) and not others and step.scales is None:
        return replace(before, steps=(*before.steps, what), output=step.output)
    return None
