"""Verification: a rewritten network against the original, on the example and on random probes.

The error is max|new - old| / max|old| over each output tensor, where an output that is far smaller than the others (a
sum that cancels to rounding noise) is measured against a millionth of the largest. Where rounding alone exceeds the
tolerance (a deep network in float32), both networks are compared again in float64, which tells rounding from a wrong
rewrite.
"""

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from spokeshave.errors import InexactRewrite, RewriteError
from spokeshave.structures.example_inputs import batch_of, map_tensors, with_batch
from spokeshave.structures.graph_tracing import quiet

_LOOSER = {torch.float16: 2e-2, torch.bfloat16: 1e-1}
SMALLEST_SHARE = 1e-6
PROBES = 4
"""Sets of arguments that a rewritten network is checked on."""
FLOOR_IN_DOUBLE = 1e-12
MOST_ROUNDING = 1e-3
"""A rewrite is held to the original's own rounding errors where they exceed the tolerance, but not to larger ones."""


def probes_like(inputs: tuple[object, ...], seed: int = 0, count: int = 4) -> list[tuple[object, ...]]:
    """The example, random inputs of its shape and scale, and random inputs of two other batch sizes.

    Args:
        inputs: arguments of forward.
        seed: of the random numbers; the global generator is not used.
        count: of these four, the first so many.

    Returns:
        sets of arguments.
    """
    generator = torch.Generator().manual_seed(seed)

    def randomise(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            wide = tensor.detach().double().cpu()
            spread = float(wide.std()) if wide.numel() > 1 else 0.0
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            return (float(wide.mean()) + (spread or 1.0) * noise).to(tensor)
        if tensor.numel() == 0:
            return tensor
        places = torch.randint(tensor.numel(), (tensor.numel(),), generator=generator)
        return tensor.reshape(-1)[places.to(tensor.device)].reshape(tensor.shape)

    random = [map_tensors(randomise, with_batch(inputs, batch)) for batch in _batches(inputs)[: count - 1]]
    return [inputs, *(values for values in random if isinstance(values, tuple))]


def _batches(inputs: tuple[object, ...]) -> tuple[int, ...]:
    own = batch_of(inputs)
    return (own, own + 1, 1) if own != 1 else (1, 2, 3)


def relative_error(new: object, old: object, floor: float = 0.0) -> float:
    """Largest max|new - old| / max|old| over the tensors of two outputs.

    Args:
        new: output of the rewritten network.
        old: output of the original, same structure.
        floor: absolute differences up to this count as none, at least 0.

    Returns:
        the error, each tensor against its own largest entry or 1e-6 of the largest of all tensors, whichever is more;
        infinity where shapes or the finite entries differ.

    Example:
        >>> relative_error(torch.tensor([1.0, 2.2]), torch.tensor([1.0, 2.0]))
        0.10000002384185791
    """
    worst = 0.0
    leaves = [leaf for leaf in pytree.tree_leaves(old) if isinstance(leaf, Tensor)]
    others = [leaf for leaf in pytree.tree_leaves(new) if isinstance(leaf, Tensor)]
    if len(leaves) != len(others):
        return float("inf")
    smallest = SMALLEST_SHARE * max((_scale(leaf) for leaf in leaves), default=0.0)
    for a, b in zip(others, leaves, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if b.numel() == 0 or torch.equal(a, b):
            continue
        a, b = a.double(), b.double()
        finite = torch.isfinite(b)
        if not torch.equal(finite, torch.isfinite(a)):
            return float("inf")
        difference = (a - b)[finite].abs().max().item() if finite.any() else 0.0
        scale = max(_scale(b), smallest)
        if difference > floor:
            worst = max(worst, difference / scale if scale > 0 else float("inf"))
    return worst


def _scale(tensor: Tensor) -> float:
    finite = tensor[torch.isfinite(tensor)]
    return finite.double().abs().max().item() if finite.numel() else 0.0


def verify(
    new: fx.GraphModule,
    reference: nn.Module,
    inputs: tuple[object, ...],
    tolerance: float,
    first_difference: Callable[[tuple[object, ...]], str],
) -> tuple[float, list[str]]:
    """Check that two networks compute the same.

    Args:
        new: rewritten network, eval mode.
        reference: the original, eval mode.
        inputs: example arguments.
        tolerance: largest relative error; 2e-2 and 1e-1 are used for float16 and bfloat16 where it is smaller.
        first_difference: names the first place where the two differ, for the message.

    Returns:
        the largest error over the probes in the model's own precision, and remarks.

    Raises:
        InexactRewrite: they differ by more.
        RewriteError: the original does not give the same output twice.
    """
    notes: list[str] = []
    worst = 0.0
    parameter = next((p for p in reference.parameters() if p.is_floating_point()), None)
    tolerance = max(tolerance, _LOOSER.get(parameter.dtype, 0.0)) if parameter is not None else tolerance
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for place, probe, expected in _answered(reference, probes_like(inputs), notes):
            if relative_error(reference(*probe), expected) > tolerance:
                raise RewriteError(
                    "the model gives different outputs for the same input in eval mode, so no rewrite of it can be "
                    "checked; look for F.dropout without training=self.training or for random numbers in forward"
                )
            error = relative_error(new(*probe), expected)
            worst = max(worst, error)
            if error > tolerance and _error_in_double(new, reference, probe) > tolerance:
                raise InexactRewrite(
                    f"expected the shrunk network to match to {tolerance:g} relative, got {error:g} on probe {place}; "
                    f"first difference: {first_difference(probe)}. This is a defect of the rewrite: keep the original "
                    "model, and report the architecture"
                )
            if error > tolerance:
                notes.append(
                    f"float64 runs agree; the difference of {error:.1e} on probe {place} is rounding in "
                    "the model's own precision"
                )
    return worst, notes


def worst_error(
    new: Sequence[Callable[..., object]],
    reference: nn.Module,
    inputs: tuple[object, ...],
    tolerance: float,
    notes: list[str],
    answers: Sequence[object] = (),
) -> float:
    """Largest relative error of a network that computes in float32 only.

    Beyond the tolerance, both are compared with the original in float64: a sum that cancels may leave more rounding in
    the original than in the rewrite.

    Args:
        new: rewritten network, or ways to run it: one for each probe of `probes_like`; fewer for fewer probes.
        reference: the original, eval mode.
        inputs: example arguments.
        tolerance: largest relative error.
        notes: remarks are added to it.
        answers: what the original gives for the first probes, where that is known already.

    Raises:
        InexactRewrite: they differ by more.
    """
    worst = failed = 0.0
    for place, probe, expected in _answered(reference, probes_like(inputs, count=len(new)), notes, answers):
        result = new[place](*probe)
        error = relative_error(result, expected)
        worst = max(worst, error)
        if error > tolerance:
            exact = _in_double(reference, probe)
            if relative_error(result, exact) <= max(tolerance, min(relative_error(expected, exact), MOST_ROUNDING)):
                notes.append(
                    f"the difference of {error:.1e} on probe {place} is rounding: the original is no closer to its own "
                    "result in float64"
                )
            else:
                failed = max(failed, error)
    if failed:
        raise InexactRewrite(
            f"expected the sparse network to match to {tolerance:g} relative, got {failed:g}. If the model is deep and "
            "rounding explains it, pass a larger tolerance; otherwise keep the original and report the architecture"
        )
    return worst


def _answered(
    reference: nn.Module, probes: Sequence[tuple[object, ...]], notes: list[str], answers: Sequence[object] = ()
) -> Iterator[tuple[int, tuple[object, ...], object]]:
    """Place, probe and the original's output, for the probes that the original can run; a note for each other.

    A model may be made for one batch size: only the first two probes, which have the example's, must run.
    """
    for place, probe in enumerate(probes):
        try:
            with quiet():
                expected = answers[place] if place < len(answers) else reference(*probe)
        except Exception as error:
            if place < 2:
                raise
            notes.append(f"another batch size was not checked: the model itself fails there ({error})")
            continue
        yield place, probe, expected


def _in_double(reference: nn.Module, probe: tuple[object, ...]) -> object:
    """What a network computes in float64; nothing, which agrees with nothing, where it does not run in it."""
    wide = map_tensors(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor, probe)
    assert isinstance(wide, tuple)
    try:
        with quiet():
            return copy.deepcopy(reference).double()(*wide)
    except (RuntimeError, TypeError):
        return None


def _error_in_double(new: nn.Module, reference: nn.Module, probe: tuple[object, ...]) -> float:
    wide = map_tensors(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor, probe)
    assert isinstance(wide, tuple)
    try:
        with quiet():
            results = copy.deepcopy(new).double()(*wide), copy.deepcopy(reference).double()(*wide)
    except (RuntimeError, TypeError):
        return float("inf")
    return relative_error(*results, floor=FLOOR_IN_DOUBLE)
