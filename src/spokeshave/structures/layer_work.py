"""Layer work: FLOPs and bytes of every convolution and linear layer of a model, for the roofline model.

Park et al., ICLR 2017, section 2.2: C = 2 N C R S H W FLOPs, S_A bytes of input and output, S_W bytes of dense weights.
Departs from the paper: nothing known.
"""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn

from spokeshave.structures.groups import CONVOLUTIONS, TRANSPOSED
from spokeshave.structures.roofline_model import LayerWork


def layer_works(model: nn.Module, example: Tensor) -> dict[str, LayerWork]:
    """Run the model once and note what each layer does; a layer that is called twice works twice.

    Args:
        model: left in its mode, on the example's device.
        example: input, batch first; the numbers are for one image of it.

    Returns:
        The work of the layers that were called, in the model's order.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3))
        >>> layer_works(net, torch.zeros(4, 1, 5, 5))["0"]  # 2 x 18 weights x 9 places; 25 + 18 floats
        LayerWork(name='0', flops_per_image=324.0, activation_bytes=172.0, weight_bytes=72.0)
    """
    calls: dict[str, list[tuple[float, float]]] = {}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, (*CONVOLUTIONS, nn.Linear))}
    images = len(example)

    def note(name: str, module: nn.Module, entering: Tensor, leaving: Tensor) -> None:
        weight = module.get_parameter("weight")
        # Every output is a row of the weight times a patch; of a transposed convolution, every input is.
        ends = entering if isinstance(module, TRANSPOSED) else leaving
        flops = 2 * ends.numel() * prod(weight.shape[1:])
        size = entering.numel() * entering.element_size() + leaving.numel() * leaving.element_size()
        calls.setdefault(name, []).append((flops / images, size / images))

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda module, inputs, output: note(name, module, inputs[0], output)

    handles = [module.register_forward_hook(hook(name)) for name, module in layers.items()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return {
        name: LayerWork(
            name, sum(f for f, _ in calls[name]), sum(b for _, b in calls[name]),
            float(module.get_parameter("weight").numel() * module.get_parameter("weight").element_size()),
        )
        for name, module in layers.items() if name in calls
    }  # fmt: skip
