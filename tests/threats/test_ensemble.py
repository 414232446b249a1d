"""Closed forms, counted votes, gradients by finite differences, and logits too large for a plain softmax."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spokeshave.errors import InvalidArgument
from spokeshave.threats.ensemble import Combine, Ensemble, combined


def random_scores(members: int = 5, images: int = 40, classes: int = 4) -> Tensor:
    return 3 * torch.randn(members, images, classes, dtype=torch.float64)


def voted(scores: Tensor) -> list[int]:
    """Vote by counting; ties to the larger mean probability."""
    found = []
    for image in range(scores.shape[1]):
        votes = [0] * scores.shape[2]
        for member in scores[:, image]:
            votes[int(member.argmax())] += 1
        mean = scores[:, image].softmax(1).mean(0).tolist()
        found.append(max(range(len(votes)), key=lambda c: (votes[c], mean[c])))
    return found


def test_the_mean_of_probabilities_is_the_mean_of_the_softmaxes() -> None:
    scores = random_scores()
    together = combined(scores, Combine.PROBABILITY_MEAN)
    torch.testing.assert_close(together.exp(), scores.softmax(2).mean(0))


def test_the_mean_of_logits_is_the_geometric_mean_of_probabilities() -> None:
    scores = random_scores()
    product = scores.softmax(2).log().mean(0).exp()
    torch.testing.assert_close(combined(scores, Combine.LOGIT_MEAN).exp(), product / product.sum(1, keepdim=True))


def test_votes_are_counted_and_ties_go_to_the_larger_mean_probability() -> None:
    scores = random_scores(members=4, images=300)
    together = combined(scores, Combine.VOTE)
    winners = scores.argmax(2)
    ties = [len(set(winners[:, image].tolist())) != 1 for image in range(300)]
    assert sum(ties) > 100
    assert together.argmax(1).tolist() == voted(scores)
    torch.testing.assert_close(together.exp().sum(1), torch.ones(300, dtype=torch.float64))


def test_one_vote_more_beats_any_mean_probability() -> None:
    barely = torch.tensor([0.0, 0.0, 1e-6])
    scores = torch.stack([barely, barely, torch.tensor([50.0, 0.0, 0.0])])[:, None]
    assert combined(scores, Combine.PROBABILITY_MEAN).argmax().item() == 0
    assert combined(scores, Combine.VOTE).argmax().item() == 2


def test_the_gradient_of_votes_is_that_of_the_mean_probability() -> None:
    scores = random_scores().requires_grad_()
    labels = torch.randint(0, 4, (40,))
    weights = torch.randn(40, 4, dtype=torch.float64)
    found, wanted = (
        torch.autograd.grad((combined(scores, rule) * weights).sum(), scores)[0]
        for rule in (Combine.VOTE, Combine.PROBABILITY_MEAN)
    )
    torch.testing.assert_close(found, wanted)
    loss = functional.cross_entropy(combined(scores, Combine.VOTE), labels)
    assert torch.autograd.grad(loss, scores)[0].count_nonzero() == scores.numel()


def test_confidence_gives_the_probabilities_of_the_surest_member() -> None:
    scores = random_scores()
    together = combined(scores, Combine.CONFIDENCE)
    for image in range(40):
        surest = max(range(5), key=lambda member: float(scores[member, image].softmax(0).max()))
        torch.testing.assert_close(together[image].exp(), scores[surest, image].softmax(0))


@pytest.mark.parametrize("rule", [Combine.PROBABILITY_MEAN, Combine.LOGIT_MEAN, Combine.CONFIDENCE])
def test_gradients_agree_with_finite_differences(rule: Combine) -> None:
    scores = random_scores(3, 6, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda found: combined(found, rule), scores)


@pytest.mark.parametrize("rule", list(Combine))
def test_large_logits_stay_finite_and_keep_a_gradient(rule: Combine) -> None:
    scores = torch.tensor([[[1e4, -1e4, 0.0]], [[-1e30, 1e30, 0.0]], [[1e4, -1e4, 5.0]]], requires_grad=True)
    together = combined(scores, rule)
    assert together.isfinite().all()
    assert torch.autograd.grad(together[0, 0], scores)[0].isfinite().all()


@pytest.mark.parametrize("rule", list(Combine))
def test_one_member_is_its_own_ensemble(rule: Combine) -> None:
    member = nn.Linear(3, 4)
    images = torch.rand(5, 3)
    assert torch.equal(Ensemble([member], rule)(images).argmax(1), member(images).argmax(1))


@pytest.mark.parametrize("rule", list(Combine))
def test_equal_members_answer_as_each_of_them(rule: Combine) -> None:
    member = nn.Linear(3, 4)
    images = torch.rand(5, 3)
    together = Ensemble([copy.deepcopy(member) for _ in range(3)], rule)(images)
    assert torch.equal(together.argmax(1), member(images).argmax(1))
    if rule is not Combine.VOTE:
        torch.testing.assert_close(together.exp(), member(images).softmax(1))


def test_half_precision_is_summed_in_float32() -> None:
    scores = torch.randn(3, 5, 4).bfloat16()
    together = combined(scores, Combine.PROBABILITY_MEAN)
    torch.testing.assert_close(together, combined(scores.float(), Combine.PROBABILITY_MEAN))


def test_what_cannot_be_combined_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="at least one network"):
        Ensemble([])
    with pytest.raises(InvalidArgument, match=r"scores of one shape, got \[\(2, 3\), \(2, 4\)\]"):
        Ensemble([nn.Linear(5, 3), nn.Linear(5, 4)])(torch.rand(2, 5))
    with pytest.raises(InvalidArgument, match="two classes"):
        combined(torch.zeros(2, 3, 1), Combine.VOTE)
