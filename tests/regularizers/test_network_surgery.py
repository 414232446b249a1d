"""Network surgery against the update written out with two arrays, and weights that come back."""

import pytest
import torch
from torch import nn

from spokeshave.errors import InvalidArgument
from spokeshave.regularizers import NetworkSurgery


def layer_of(weights: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weights), 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([weights]))
    return layer


def test_the_dense_copy_is_moved_by_the_gradient_at_the_cut_weights():
    start, target = [0.5, 0.05, -0.08, 0.3], torch.tensor([0.0, 1.0, -0.02, 0.09])
    layer = layer_of(start)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.5)
    NetworkSurgery(layer, strength=0.02, threshold=0.1).attach(optimizer)
    dense, seen, momentum = torch.tensor(start), torch.tensor(start), torch.zeros(4)
    revived = False
    for _ in range(12):
        optimizer.zero_grad()
        (0.5 * (layer.weight[0] - target).square().sum()).backward()
        optimizer.step()
        momentum = 0.5 * momentum + (seen - target) + 0.02 * seen.sign()
        dense = dense - 0.1 * momentum
        before = seen
        seen = torch.where(dense.abs() >= 0.1, dense, 0.0)
        revived |= bool(((before == 0) & (seen != 0)).any())
        assert torch.allclose(layer.weight[0], seen, atol=1e-6)
    assert revived and (layer.weight == 0).any()


def test_hidden_values_go_through_a_checkpoint():
    layer = layer_of([0.5, 0.05])
    optimizer = torch.optim.SGD(layer.parameters(), 0.01)
    first = NetworkSurgery(layer, threshold=0.1)
    first.attach(optimizer)
    layer.weight.grad = torch.zeros(1, 2)
    optimizer.step()
    assert layer.weight[0].tolist() == [0.5, 0.0]
    state = {name: torch.as_tensor(value).clone() for name, value in first.state_dict().items()}
    other = layer_of(layer.weight[0].tolist())
    again = torch.optim.SGD(other.parameters(), 0.01)
    second = NetworkSurgery(other, threshold=0.1)
    second.load_state_dict(state)
    second.attach(again)
    other.weight.grad = torch.tensor([[0.0, -6.0]])
    again.step()
    assert other.weight[0].tolist() == pytest.approx([0.5, 0.11])  # 0.05 was not forgotten


def test_bad_numbers_are_refused():
    with pytest.raises(InvalidArgument, match="threshold"):
        NetworkSurgery(nn.Linear(2, 2), threshold=-1.0)
