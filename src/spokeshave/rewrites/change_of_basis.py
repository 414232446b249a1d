"""Change of basis of a factorized layer that is being trained: weights, and what its optimizer remembers of them.

With W = C B, new factors B' = R B and C' = C A stand for the same function where A R = 1 on what is kept. Gradients
follow: dL/dB' = A^T dL/dB and dL/dC' = dL/dC R^T, and so does every average of gradients (momentum, Adam's first
moment). Averages of squares (Adam's second moment) take the squares of the coefficients, as if gradients of different
basis filters were independent; anything else an optimizer holds of a weight's shape is set to zero.
Departs from the paper: the authors' code makes a new solver at every change, which forgets the momentum.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from spokeshave.errors import InvalidArgument

FIRST_MOMENTS = ("momentum_buffer", "exp_avg")
"""States that are averages of gradients, by the names that torch's optimizers give them. Not RMSprop's `grad_avg`: its
square is taken off an average of squares, which is moved approximately, and what is left must not be negative."""
SECOND_MOMENTS = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")
"""States that are averages, maxima or sums of squared gradients."""


@dataclass(frozen=True)
class Change:
    """New factors of one layer of one convolution group.

    Attributes:
        basis: B'.
        combination: C'.
        to_basis: R, where B' = R B.
        to_combination: A, where C' = C A.
    """

    basis: Float[Tensor, "kept taps"]
    combination: Float[Tensor, "outputs kept"]
    to_basis: Float[Tensor, "kept rank"]
    to_combination: Float[Tensor, "rank kept"]


def clip_by_basis(basis: Float[Tensor, "rank taps"], combination: Float[Tensor, "outputs rank"], rank: int) -> Change:
    """The paper's step: PCA of the basis filters alone, so that the change is a rotation and a cut.

    Args:
        basis: B.
        combination: C.
        rank: kept, 1..rank of the factors.
    """
    _, vectors = torch.linalg.eigh(basis.double() @ basis.double().T)
    kept = vectors.flip(1)[:, :rank]
    return Change(kept.T @ basis.double(), combination.double() @ kept, kept.T, kept)


def clip_by_product(basis: Float[Tensor, "rank taps"], combination: Float[Tensor, "outputs rank"], rank: int) -> Change:
    """Truncated SVD of the product C B, the best approximation of the layer; its scale is shared by both factors.

    Args:
        basis: B.
        combination: C.
        rank: kept, 1..rank of the product.
    """
    left, small_left = torch.linalg.qr(combination.double())
    right, small_right = torch.linalg.qr(basis.double().T)
    u, values, v = torch.linalg.svd(small_left @ small_right.T)
    root = values[:rank].sqrt()
    new_combination = left @ u[:, :rank] * root
    new_basis = (root[:, None] * v[:rank]) @ right.T
    # C' = C A and B' = R B, solved in the small factors; pinv, since a direction may have died in one of them.
    to_combination = torch.linalg.pinv(small_left) @ (u[:, :rank] * root)
    to_basis = (root[:, None] * v[:rank]) @ torch.linalg.pinv(small_right.T)
    return Change(new_basis, new_combination, to_basis, to_combination)


def product_energies(
    basis: Float[Tensor, "rank taps"], combination: Float[Tensor, "outputs rank"]
) -> Float[Tensor, " values"]:
    """Squared singular values of C B, falling, in float64, without making the product."""
    small_left = torch.linalg.qr(combination.double(), mode="r").R
    small_right = torch.linalg.qr(basis.double().T, mode="r").R
    return torch.linalg.svdvals(small_left @ small_right.T).square()


def replace_parameter(
    optimizer: Optimizer, old: nn.Parameter, new: list[nn.Parameter], carry: list[Callable[[str, Tensor], Tensor]]
) -> None:
    """Put parameters in the place of another one, in its group, and what the optimizer remembers with them.

    Args:
        optimizer: any that keeps one state a parameter.
        old: a parameter that it holds.
        new: its successors.
        carry: for each, makes its state from a name and the old value, for values of the old parameter's shape.

    Raises:
        InvalidArgument: where the optimizer does not hold `old`.
    """
    for group in optimizer.param_groups:
        place = next((index for index, held in enumerate(group["params"]) if held is old), None)
        if place is not None:
            group["params"][place : place + 1] = new
            break
    else:
        raise InvalidArgument("the optimizer does not hold a weight of the layer: make it from the same model")
    check_states(optimizer, old)
    state = optimizer.state.pop(old, {})
    for parameter, make in zip(new, carry, strict=True):
        for name, value in state.items():
            whole = isinstance(value, Tensor) and value.shape == old.shape
            optimizer.state[parameter][name] = make(name, value) if whole else _copied(value)


def check_states(optimizer: Optimizer, parameter: Tensor) -> None:
    """Refuse optimizers that keep of a weight what is neither a number nor of the weight's shape.

    Raises:
        InvalidArgument: names the optimizer and what it keeps.
    """
    for name, value in optimizer.state.get(parameter, {}).items():
        if isinstance(value, Tensor) and value.numel() > 1 and value.shape != parameter.shape:
            raise InvalidArgument(
                f"{type(optimizer).__name__} keeps {name} of shape {tuple(value.shape)} for a weight of shape "
                f"{tuple(parameter.shape)}, which cannot be carried over to another rank; use SGD, Adam or AdamW"
            )


def carried(name: str, value: Tensor, move: Callable[[Tensor, bool], Tensor]) -> Tensor:
    """A state of an optimizer after a linear change of its parameter.

    Args:
        name: of the state.
        value: of the old parameter's shape.
        move: applies the change of gradients to a tensor; with True, its coefficients squared.

    Returns:
        The state of the new parameter.
    """
    if name in FIRST_MOMENTS:
        return move(value, False)
    if name in SECOND_MOMENTS:
        return move(value, True)
    return torch.zeros_like(move(value, False))


def _copied(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value
