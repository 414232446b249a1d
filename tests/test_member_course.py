import torch

from spokeshave.data import Batches, Split
from spokeshave.member_course import MemberCourse, member_seed
from spokeshave.models import SmallCNN
from spokeshave.train_settings import TrainSettings


def course() -> MemberCourse:
    split = Split(torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8), torch.arange(16) % 10)
    return MemberCourse(
        [(0.1,), (0.1, 8 / 255)],
        Batches(split, 8),
        Batches(split, 8),
        TrainSettings(epochs=1),
        3,
        {"clean_share": 0.25},
    )


def test_members_have_names_for_people_and_transforms_with_seeds_of_their_own() -> None:
    found = course()
    assert [found.name(0), found.name(1)] == [
        "member 1 of 2 (strength 0.1)", "member 2 of 2 (strength 0.1, 0.03137)",
    ]  # fmt: skip
    network = SmallCNN(size=8, width=2, hidden=4)
    mats = [found.mat(member, network) for member in (0, 1)]
    assert [mat.seed for mat in mats] == [member_seed(3, 0), member_seed(3, 1)]
    assert [mat.strengths for mat in mats] == [(0.1,), (8 / 255, 0.1)]
    assert all(mat.clean_share == 0.25 for mat in mats)


def test_training_a_member_leaves_no_gradient_and_tells_its_rows() -> None:
    network, rows = SmallCNN(size=8, width=2, hidden=4), []
    before = network.fc4.weight.clone()
    history = course().train(1, network, rows.append)
    assert rows == history.rows and len(rows) == 1
    assert not torch.equal(network.fc4.weight, before)
    assert all(parameter.grad is None for parameter in network.parameters())
