"""The work of layers against the FLOP counter of torch and shapes written out."""

import torch
from torch import nn

from spokeshave.measure import measure
from spokeshave.structures.layer_work import layer_works
from spokeshave.structures.roofline_model import LayerWork


def test_flops_are_those_that_torch_counts():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, groups=4, dilation=2), nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 3, stride=2, groups=2), nn.Flatten(), nn.Linear(6 * 13 * 13, 5),
    )  # fmt: skip
    net[0].weight.data.mul_(2)
    net.train()
    images = torch.zeros(4, 3, 20, 20)
    works = layer_works(net, images)
    counted = {cost.name: cost.flops for cost in measure(net, images, latency=False).layers if cost.flops}
    assert {name: work.flops_per_image for name, work in works.items()} == {n: counted[n] for n in works}
    assert list(works) == ["0", "1", "3", "5"] and net.training
    assert works["0"].activation_bytes == 4 * (3 * 20 * 20 + 8 * 10 * 10)
    assert works["1"].weight_bytes == 4 * 8 * 2 * 9
    assert not any(module._forward_hooks for module in net.modules())


def test_a_layer_that_is_called_twice_works_twice_and_one_that_is_not_has_no_work():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(self.used(x))

    assert layer_works(Twice(), torch.zeros(2, 3)) == {"used": LayerWork("used", 36.0, 48.0, 36.0)}
