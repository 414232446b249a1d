import torch
import torch.nn.functional as F
from torch import fx, nn

from spokeshave.structures.operation_kinds import Kind, argument, kind_of, module_kind, name_of, source_of


class Forms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(F.relu(torch.relu(x.relu())))
        x = torch.add(x, other=x) + x
        x = F.avg_pool2d(input=x, kernel_size=2)
        return torch.cat(tensors=[x, x], dim=1).fft(x.shape)  # type: ignore[operator]


def test_every_form_of_an_operation_has_one_kind():
    graph = fx.symbolic_trace(Forms())
    modules = dict(graph.named_modules())
    calls = [node for node in graph.graph.nodes if node.op.startswith("call")]
    kinds = [kind_of(node, modules) for node in calls]
    assert kinds[:6] == [Kind.POINTWISE] * 6
    assert kinds[6:] == [Kind.SPATIAL, Kind.CONCAT, Kind.SHAPE, Kind.BARRIER]
    assert source_of(calls[6]) is calls[5] and source_of(calls[7]) is None
    assert argument(calls[7], 1, "dim") == 1 and argument(calls[7], 5, "missing", "default") == "default"
    assert name_of(calls[0]) == "relu" and name_of(calls[3]) == ""


def test_subclasses_and_hooked_modules_are_barriers():
    class Odd(nn.Conv2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input).flip(1)

    assert module_kind(Odd(1, 1, 1)) is Kind.BARRIER and module_kind(nn.Conv2d(1, 1, 1)) is Kind.MIXING
    hooked = nn.ReLU()
    hooked.register_forward_hook(lambda *_: None)
    assert module_kind(hooked) is Kind.BARRIER
    assert module_kind(nn.MaxPool2d(2, return_indices=True)) is Kind.BARRIER
