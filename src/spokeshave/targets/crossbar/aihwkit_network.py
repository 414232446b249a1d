"""Aihwkit network: the same network as analog tiles of IBM's Analog Hardware Acceleration Kit, where that is installed.

Rasch et al., A flexible and fast PyTorch toolkit for simulating training and inference on analog crossbar arrays,
AICAS 2021. Tiles are its `TorchInferenceRPUConfig`, of the sizes that `Tiling.BALANCED` gives.
Departs from the papers: none of Spokeshave's device models are handed over; aihwkit has its own.
"""

from typing import Any

from torch import nn

from spokeshave.errors import InvalidArgument, MissingExtra
from spokeshave.optional import available
from spokeshave.targets.crossbar.layer_product import plain_layer
from spokeshave.targets.crossbar.mapped_network import MappedNetwork, with_layers


def to_aihwkit(network: nn.Module, size: tuple[int, int] = (64, 64), settings: object = None) -> nn.Module:
    """Turn a network into one of aihwkit's.

    Args:
        network: any module that aihwkit converts (it refuses grouped convolutions); or a mapped network, whose weights
            are then those that its crossbars multiply by, and whose `size` counts. It is not modified.
        size: most inputs and outputs of a tile.
        settings: an aihwkit RPU configuration with its tile sizes; by default `TorchInferenceRPUConfig` of this size
            without noise or converters.

    Returns:
        aihwkit's network, in eval mode.

    Raises:
        MissingExtra: aihwkit is not installed here.
        InvalidArgument: a size below 1.
    """
    if min(size) < 1:
        raise InvalidArgument(f"size: expected two numbers of wires of at least 1, got {size}")
    if not available("aihwkit"):
        raise MissingExtra(
            "to_aihwkit needs aihwkit. Its packages bind one version of torch, so give it an environment of its own: "
            "python benchmarks/peer_environments.py --peers aihwkit"
        )
    from aihwkit.nn.conversion import convert_to_analog

    if isinstance(network, MappedNetwork):
        size, network = network.size, ordinary_network(network)
    return convert_to_analog(network, settings or _perfect(size)).eval()


def ordinary_network(mapped: MappedNetwork) -> nn.Module:
    """A mapped network with ordinary layers in place of crossbars: the weights are those that the crossbars hold.

    Args:
        mapped: it is not modified. Converters and read noise are left out.

    Example:
        >>> from spokeshave.targets.crossbar.weights_to_tiles import Crossbar
        >>> ordinary_network(Crossbar().map(nn.Linear(3, 2)))
        Linear(in_features=3, out_features=2, bias=True)
    """
    layers = {
        name: plain_layer(layer.product, layer.weight.detach(), layer.bias) for name, layer in mapped.layers.items()
    }
    return with_layers(mapped.network, layers)


def _perfect(size: tuple[int, int]) -> Any:
    from aihwkit.simulator.configs import TorchInferenceRPUConfig

    settings = TorchInferenceRPUConfig()
    settings.mapping.max_input_size, settings.mapping.max_output_size = size
    settings.forward.is_perfect = True
    return settings
