"""What the loop counts for each member of a stack, against the members looked at one by one."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spokeshave.data import Batches, Split
from spokeshave.errors import InvalidArgument
from spokeshave.evaluation import evaluate
from spokeshave.models import SmallCNN
from spokeshave.stacked_training import train_stack
from spokeshave.structures.member_stack import MemberStack
from spokeshave.train_settings import Schedule, TrainSettings

MEMBERS = 3


class Repeated:
    """The plainest transform: every member trains on the batch as it is."""

    def transform(self, step: int, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return inputs.repeat(MEMBERS, 1, 1, 1), labels.repeat(MEMBERS)

    def report(self) -> dict[str, Any]:
        return {"members": [{"number": member} for member in range(MEMBERS)]}

    def settings(self) -> dict[str, Any]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        assert not state


def batches() -> Batches:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Batches(Split(images, torch.arange(20) % 10), 8)


def networks() -> list[nn.Module]:
    return [SmallCNN(size=8, width=4, hidden=8, batch_norm=True) for _ in range(MEMBERS)]


def test_each_member_has_its_own_scores_and_losses() -> None:
    stack = MemberStack(networks())
    first = stack.unstack()
    heard: list[tuple[int, int]] = []
    settings = TrainSettings(
        epochs=2, learning_rate=0.01, weight_decay=0.0, schedule=Schedule.CONSTANT, label_smoothing=0.1
    )
    data = batches()
    histories = train_stack(
        stack, Repeated(), data, data, settings, log=lambda member, row: heard.append((member, row["epoch"]))
    )
    assert sorted(heard) == [(member, epoch) for member in range(MEMBERS) for epoch in (1, 2)]
    for member, (history, network) in enumerate(zip(histories, stack.unstack(), strict=True)):
        score = evaluate(network.eval(), data)
        last = history.rows[-1]
        assert last["validation_accuracy"] == score.accuracy
        assert last["validation_loss"] == pytest.approx(score.loss, rel=1e-5)
        assert last["transform"] == {"number": member}
        assert history.best_epoch == max(history.rows, key=lambda row: row["validation_accuracy"])["epoch"]
    for history, network in zip(histories, first, strict=True):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        for epoch, row in enumerate(history.rows):
            losses = []
            for index in range(len(data)):
                images, labels = data.batch(epoch, index)
                loss = functional.cross_entropy(network.train()(images), labels, label_smoothing=0.1)
                losses.append(loss.item())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            assert row["train_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_the_hooks_of_the_count_are_gone_afterwards() -> None:
    stack = MemberStack(networks())
    train_stack(stack, Repeated(), batches(), batches(), TrainSettings(epochs=1))
    assert not stack._forward_hooks


def test_what_cannot_be_had_for_each_member_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="keep_best: cannot be had for each member"):
        train_stack(MemberStack(networks()), Repeated(), batches(), batches(), TrainSettings(keep_best=True))
