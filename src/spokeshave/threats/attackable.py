"""What an attack needs of images, scores and a model, checked before it starts: one place for all attacks.

Every attack here expects images in 0..1, logits, and a gradient from the scores back to the images. A model that breaks
one of these does not crash an attack, it makes the attack weak, and so looks safe: hence each is refused, by name.
"""

import torch
from torch import Tensor, nn

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.timing import evaluating

ROUNDING = 1e-5
"""How far from 0..1 a pixel, and from 1 the sum of probabilities, may be by rounding alone."""
_NOISE = 64
"""Images of noise that are looked at where two images have no gradient."""


def require_images(images: Tensor, where: str, any_range: bool = False) -> None:
    """Refuse what is not a batch of images in 0..1, or in any range.

    Args:
        images: any shape of at least two dimensions, the first counts the images.
        where: the argument's name, for the message.
        any_range: values may be anything finite, such as normalised ones.

    Raises:
        InvalidArgument: for a wrong type or shape, an empty batch, NaN, or values outside 0..1.

    Example:
        >>> require_images(torch.tensor([[0.0, 255.0]]), "base_images")
        Traceback (most recent call last):
        spokeshave.errors.InvalidArgument: base_images: expected values in 0..1, got 0..255; ...
    """
    values = "finite values" if any_range else "values in 0..1"
    if not images.is_floating_point():
        raise InvalidArgument(f"{where}: expected floating-point {values}, got {images.dtype}; divide bytes by 255")
    if images.ndim < 2 or not images.numel():
        raise InvalidArgument(
            f"{where}: expected a batch of at least one image, first dimension images, got shape {tuple(images.shape)}"
        )
    broken = ~images.flatten(1).isfinite().all(1)
    if bool(broken.any()):
        raise InvalidArgument(
            f"{where}: expected {values}, got NaN or infinite ones in {int(broken.sum())} of {len(images)} images, the "
            f"first at {int(broken.nonzero()[0])}; leave them out"
        )
    if any_range:
        return
    low, high = float(images.min()), float(images.max())
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise InvalidArgument(
            f"{where}: expected values in 0..1, got {low:.4g}..{high:.4g}; scale the images, and put a normalization "
            "into the model as its first layer"
        )


def require_labels(labels: Tensor, images: Tensor, where: str, classes: int | None = None) -> None:
    """Refuse what is not one class number for each image.

    Args:
        labels: integers from 0.
        images: that they belong to.
        where: the argument's name, for the message.
        classes: how many the model tells apart; None where that is not known.

    Raises:
        InvalidArgument: for a wrong type, another number than there are images, or a class that does not exist.
    """
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise InvalidArgument(
            f"{where}: expected {len(images)} class numbers of type int64, one for each image, got "
            f"{labels.dtype} of shape {tuple(labels.shape)}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        allowed = "at least 0" if classes is None else f"0..{classes - 1}"
        raise InvalidArgument(f"{where}: expected class numbers {allowed}, got {low}..{high}")


def require_logits(scores: Tensor, where: str) -> None:
    """Refuse scores that cannot be logits; probabilities, whose loss hardly moves, are told by their sum.

    Args:
        scores: images x classes, as the model gave them.
        where: what gave them, such as the class of the model.

    Raises:
        InvalidArgument: for another shape, values that are not finite, or rows that are probabilities.

    Example:
        >>> require_logits(torch.tensor([[0.25, 0.75]]), "Net")
        Traceback (most recent call last):
        spokeshave.errors.InvalidArgument: Net: expected logits, got probabilities (every row sums to 1); ...
    """
    if scores.ndim != 2 or scores.shape[1] < 2 or not scores.is_floating_point():
        raise InvalidArgument(
            f"{where}: expected logits of shape (images, classes) with at least two classes, got {scores.dtype} of "
            f"shape {tuple(scores.shape)}"
        )
    if not bool(scores.isfinite().all()):
        raise InvalidArgument(f"{where}: expected finite logits, got NaN or infinite ones; did the training diverge?")
    sums = scores.detach().sum(1)
    if bool((scores >= 0).all()) and bool(((sums - 1).abs() < max(ROUNDING, torch.finfo(scores.dtype).eps * 8)).all()):
        raise InvalidArgument(
            f"{where}: expected logits, got probabilities (every row sums to 1); leave the softmax out, or return the "
            "logarithm of the probabilities"
        )


def require_place(model: nn.Module, images: Tensor, where: str) -> None:
    """Refuse images of another device or precision than the model's weights.

    Args:
        model: whose first floating-point parameter is looked at.
        images: a batch.
        where: the argument's name, for the message.

    Raises:
        InvalidArgument: where they differ.
    """
    weight = next((parameter for parameter in model.parameters() if parameter.is_floating_point()), images)
    if (weight.device, weight.dtype) != (images.device, images.dtype):
        raise InvalidArgument(
            f"{where}: expected {weight.dtype} on {weight.device}, as the weights of {type(model).__name__}, got "
            f"{images.dtype} on {images.device}; use images.to(...)"
        )


def require_trainable(model: nn.Module) -> None:
    """Refuse a model that retraining could not change.

    Raises:
        UnsupportedLayer: where no parameter asks for a gradient.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UnsupportedLayer(
            f"{type(model).__name__}: poisoning acts through retraining, but none of its parameters is trainable; "
            "call requires_grad_(True) on those that the victim trains"
        )


def require_differentiable(model: nn.Module, images: Tensor) -> None:
    """Refuse a model whose scores send no gradient back to the images, and name the layer where it is lost.

    The model is run in evaluation mode, on two of the images. Where their gradient is zero it may only be that all
    ReLUs are dead there: then images of noise decide.

    Args:
        model: gives logits for images.
        images: a batch in 0..1.

    Raises:
        UnsupportedLayer: where the gradient is cut (argmax, no_grad, detach) or zero everywhere (rounding, sign).
        InvalidArgument: where the scores are not logits.
    """
    name = type(model).__name__
    ran: list[tuple[str, nn.Module, Tensor]] = []
    cut: list[tuple[str, nn.Module]] = []

    def watch(path: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if isinstance(output, Tensor):
                ran.append((path, module, output))
                came_in = any(isinstance(value, Tensor) and value.requires_grad for value in inputs)
                if came_in and not output.requires_grad:
                    cut.append((path, module))

        return module.register_forward_hook(hook)

    handles = [watch(path, module) for path, module in model.named_modules() if not any(module.children())]
    try:
        with torch.enable_grad(), evaluating(model):
            probe = images[:2].detach().clone().requires_grad_(True)
            scores = model(probe)
            if isinstance(scores, Tensor) and scores.is_floating_point():
                require_logits(scores, name)
            tensors = [probe, *(output for _, _, output in ran)]
            gradients = _gradients(scores, tensors)
    finally:
        for handle in handles:
            handle.remove()
    if not _is_lost(gradients[0]) or (gradients[0] is not None and not _is_staircase(model, images)):
        return
    reached = [
        (path, module) for (path, module, _), found in zip(ran, gradients[1:], strict=True) if not _is_lost(found)
    ]
    if cut or reached:
        path, module = (cut or reached)[0]
        culprit = f"it is lost in {'' if cut else 'or just before '}layer {path or 'itself'} ({type(module).__name__})"
    else:
        culprit = f"it is lost after the last layer, in the forward function of {name}"
    raise UnsupportedLayer(
        f"{name}: the attack follows the gradient from the scores back to the images, but none arrives: {culprit}; "
        "look for argmax, rounding, sign, detach or no_grad, and attack a differentiable stand-in instead"
    )


def _is_staircase(model: nn.Module, images: Tensor) -> bool:
    """Whether scores differ from image to image, and yet no image of many has a gradient."""
    drawn = torch.Generator().manual_seed(0)
    noise = torch.rand(_NOISE, *images.shape[1:], generator=drawn).to(images)
    with torch.enable_grad(), evaluating(model):
        probe = noise.requires_grad_()
        scores = model(probe)
        gradient = _gradients(scores, [probe])[0]
    return _is_lost(gradient) and bool((scores != scores[:1]).any())


def _gradients(scores: object, tensors: list[Tensor]) -> list[Tensor | None]:
    if not isinstance(scores, Tensor) or not scores.requires_grad:
        return [None] * len(tensors)
    open_ones = [tensor for tensor in tensors if tensor.requires_grad]
    # Weights that differ from score to score: the plain sum is constant where a layer normalizes the scores.
    weights = torch.arange(scores.numel(), device=scores.device).to(scores.dtype).cos().reshape(scores.shape)
    found = iter(torch.autograd.grad((scores * weights).sum(), open_ones, allow_unused=True))
    return [next(found) if tensor.requires_grad else None for tensor in tensors]


def _is_lost(gradient: Tensor | None) -> bool:
    return gradient is None or not bool(gradient.count_nonzero())
