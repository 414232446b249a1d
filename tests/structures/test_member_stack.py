"""The stack against its members, each trained alone by torch's own optimizers."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spokeshave.errors import InvalidArgument, UnsupportedLayer
from spokeshave.models import SmallCNN
from spokeshave.structures.member_stack import MemberStack
from spokeshave.train_settings import OptimizerName, TrainSettings, make_optimizer

MEMBERS, IMAGES = 3, 8


def small(batch_norm: bool = True) -> SmallCNN:
    return SmallCNN(size=8, width=4, hidden=8, batch_norm=batch_norm)


def batch() -> tuple[Tensor, Tensor]:
    return torch.rand(MEMBERS, IMAGES, 1, 8, 8), torch.randint(0, 10, (MEMBERS, IMAGES))


def assert_alike(members: list[nn.Module], found: list[nn.Module], tolerance: float) -> None:
    for one, other in zip(members, found, strict=True):
        state = one.state_dict()
        assert state.keys() == other.state_dict().keys()
        for name, value in other.state_dict().items():
            torch.testing.assert_close(value, state[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_each_member_sees_its_own_images(chunk_size: int | None) -> None:
    members = [small().eval() for _ in range(MEMBERS)]
    images, _ = batch()
    scores = MemberStack(members, chunk_size).eval()(images.flatten(0, 1))
    wanted = torch.cat([member(own) for member, own in zip(members, images, strict=True)])
    torch.testing.assert_close(scores, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "steps", "tolerance"), [(OptimizerName.SGD, 1, 1e-6), (OptimizerName.SGD, 5, 1e-5),
                                          (OptimizerName.ADAM, 1, 1e-5), (OptimizerName.ADAMW, 5, 1e-4)],
)  # fmt: skip
def test_training_the_stack_trains_each_member_as_alone(optimizer: OptimizerName, steps: int, tolerance: float) -> None:
    settings = TrainSettings(learning_rate=0.01, optimizer=optimizer, momentum=0.9, weight_decay=0.1)
    members = [small().train() for _ in range(MEMBERS)]
    stack = MemberStack(members).train()
    started = copy.deepcopy(members)
    together = make_optimizer(stack, settings)
    alone = [make_optimizer(member, settings) for member in members]
    for _ in range(steps):
        images, labels = batch()
        together.zero_grad()
        functional.cross_entropy(stack(images.flatten(0, 1)), labels.flatten()).backward()
        together.step()
        for member, own, own_labels, own_optimizer in zip(members, images, labels, alone, strict=True):
            own_optimizer.zero_grad()
            functional.cross_entropy(member(own), own_labels).backward()
            own_optimizer.step()
    assert_alike(list(members), stack.unstack(), tolerance)
    assert members[0].get_buffer("norm1.num_batches_tracked") == steps
    assert not torch.equal(members[1].fc4.weight, started[1].fc4.weight)


def test_a_stack_that_is_not_trained_further_gives_its_members_back_bit_for_bit() -> None:
    members: list[nn.Module] = [small() for _ in range(MEMBERS)]
    assert_alike(members, MemberStack(members).unstack(), 0.0)


def test_the_members_handed_in_stay_as_they_are() -> None:
    members = [small().train() for _ in range(MEMBERS)]
    before = copy.deepcopy(members)
    stack = MemberStack(members).train()
    stack(batch()[0].flatten(0, 1)).sum().backward()
    assert_alike(list(before), list(members), 0.0)
    assert all(parameter.grad is None for member in members for parameter in member.parameters())


def test_biases_do_not_decay_in_a_stack_and_names_are_those_of_a_member() -> None:
    stack = MemberStack([small(batch_norm=False) for _ in range(2)])
    decaying, others = make_optimizer(stack, TrainSettings(weight_decay=0.1)).param_groups
    names = {parameter: name for name, parameter in stack.named_parameters()}
    assert {names[parameter] for parameter in decaying["params"]} == {f"{n}.weight" for n in
                                                                     ("conv1", "conv2", "fc3", "fc4")}  # fmt: skip
    assert all(names[parameter].endswith("bias") for parameter in others["params"])
    only = make_optimizer(stack, TrainSettings(weight_decay=0.1, decayed=("conv1",))).param_groups[0]
    assert [names[parameter] for parameter in only["params"]] == ["conv1.weight"]


def test_the_gradient_at_the_images_is_that_of_the_members_in_evaluation() -> None:
    members = [small().eval() for _ in range(MEMBERS)]
    images, labels = batch()
    gradients: list[Tensor] = []
    forwards: list[Callable[[Tensor], Tensor]] = [MemberStack(members).eval()]
    forwards.append(lambda flat: torch.cat([m(own) for m, own in zip(members, flat.chunk(MEMBERS), strict=True)]))
    for forward in forwards:
        flat = images.flatten(0, 1).requires_grad_()
        loss = functional.cross_entropy(forward(flat), labels.flatten(), reduction="sum")
        gradients += torch.autograd.grad(loss, flat)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-7)


def test_modes_set_one_by_one_reach_the_layers() -> None:
    stack = MemberStack([nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)) for _ in range(2)]).train()
    images = torch.rand(64, 4)
    assert (stack(images) == 0).any()
    for module in stack.modules():
        module.training = False
    assert not (stack(images) == 0).any()


def test_dropout_draws_for_each_member() -> None:
    member = nn.Sequential(nn.Dropout(0.5))
    zeros = MemberStack([member, member]).train()(torch.ones(2, 1000)) == 0
    assert 400 < int(zeros[0].sum()) < 600
    assert not torch.equal(zeros[0], zeros[1])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.two.weight = self.one.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(images)))


class Branching(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


def test_tied_weights_stay_tied() -> None:
    members = [Tied() for _ in range(2)]
    stack = MemberStack(members)
    images = torch.rand(2, 5, 3)
    wanted = torch.cat([member(own) for member, own in zip(members, images, strict=True)])
    torch.testing.assert_close(stack(images.flatten(0, 1)), wanted)
    back = stack.unstack()[1]
    assert isinstance(back, Tied) and back.one.weight is back.two.weight


def test_what_cannot_be_stacked_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="at least one"):
        MemberStack([])
    with pytest.raises(InvalidArgument, match="number 1 differs"):
        MemberStack([nn.Linear(2, 2), nn.Linear(2, 3)])
    with pytest.raises(InvalidArgument, match="number 2 differs"):
        MemberStack([nn.Dropout(0.1), nn.Dropout(0.1), nn.Dropout(0.2)])
    with pytest.raises(InvalidArgument, match="chunk_size"):
        MemberStack([nn.Linear(2, 2)], 0)
    with pytest.raises(InvalidArgument, match="multiple of 2, as many for each member, got 3"):
        MemberStack([nn.Linear(2, 2)] * 2)(torch.rand(3, 2))
    with pytest.raises(UnsupportedLayer, match="Branching: a layer cannot run for several members at once"):
        MemberStack([Branching(), Branching()])(torch.rand(4, 2))
