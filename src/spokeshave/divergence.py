"""Where a training went wrong: the first layer whose weights, gradients or outputs are not finite."""

import torch
from torch import Tensor, nn


def first_non_finite(model: nn.Module, images: Tensor) -> str:
    """Name what first became NaN or infinite, looking at weights, then gradients, then outputs in order of execution.

    Args:
        model: run once more on `images` where its weights and gradients are finite.
        images: the batch whose loss was not finite.

    Returns:
        A phrase such as "the weight conv1.weight" or "the output of layer conv2 (Conv2d)".
    """
    if not torch.isfinite(images).all():
        return "the images of the batch"
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"the weight {name}"
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"the gradient of {name}"
    found: list[str] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if not found and isinstance(output, Tensor) and not torch.isfinite(output).all():
                found.append(f"the output of layer {name} ({type(module).__name__})")

        return module.register_forward_hook(hook)

    handles = [watch(name, module) for name, module in model.named_modules() if not any(module.children())]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "the loss itself, from finite outputs"
