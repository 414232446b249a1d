"""Each sign of masking on made-up curves, none on an honest network, and some on one that hides its gradients."""

import dataclasses

import pytest
import torch
from torch import nn

from attack_cases import digits, digits_network
from spokeshave.errors import InvalidArgument
from spokeshave.threats.autoattack import AutoAttack, Part
from spokeshave.threats.gradient_masking import AttackCurves, Finding, Sign, attack_curves
from spokeshave.threats.perturbation import Norm

HONEST = AttackCurves(
    strengths=(0.1, 0.3, 0.5),
    one_step=(0.8, 0.5, 0.3),
    steps=(0.7, 0.3, 0.05),
    more_steps=(0.69, 0.29, 0.02),
    black_box=(0.75, 0.6, 0.4),
    grey_accuracy=0.12,
)
BROKEN = {
    Sign.NOT_MONOTONE: ({"one_step": (0.8, 0.5, 0.55)}, Finding(Sign.NOT_MONOTONE, 0.5, 0.55, 0.5)),
    Sign.ONE_STEP_STRONGER: ({"one_step": (0.8, 0.2, 0.1)}, Finding(Sign.ONE_STEP_STRONGER, 0.3, 0.3, 0.2)),
    Sign.MORE_STEPS_WEAKER: ({"steps": (0.6, 0.3, 0.05)}, Finding(Sign.MORE_STEPS_WEAKER, 0.1, 0.69, 0.6)),
    Sign.STANDS_ON_GREY: ({"grey_accuracy": 0.005}, Finding(Sign.STANDS_ON_GREY, 0.5, 0.02, 0.005)),
    Sign.BLACK_BOX_STRONGER: ({"black_box": (0.6, 0.2, 0.02)}, Finding(Sign.BLACK_BOX_STRONGER, 0.1, 0.69, 0.6)),
}


def test_honest_curves_show_no_sign():
    assert HONEST.findings() == []
    assert dataclasses.replace(HONEST, black_box=()).findings() == []


@pytest.mark.parametrize("sign", Sign)
def test_each_sign_is_seen_where_it_is_plainest_and_alone(sign):
    change, finding = BROKEN[sign]
    assert dataclasses.replace(HONEST, **change).findings() == [finding]
    assert dataclasses.replace(HONEST, **change).findings(tolerance=finding.accuracy - finding.limit) == []
    assert f"accuracy {finding.accuracy:.1%} at strength {finding.strength:g}" in str(finding)


def test_what_an_image_made_grey_cannot_excuse_is_looked_at_from_that_strength_on_only():
    assert dataclasses.replace(HONEST, grey_accuracy=0.01, grey_strength=0.6).findings() == []


class Steep(nn.Module):
    """Wraps a network so that nearly everywhere its loss has no gradient: scores saturate in float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1000 * torch.tanh(40 * self.model(x))


def test_an_honest_network_is_cleared_and_one_that_hides_its_gradients_is_caught():
    data = tuple(part[:60] for part in digits())
    square = AutoAttack(parts=(Part.SQUARE,), queries=150)
    honest = attack_curves(digits_network(), data, [0.05, 0.1], steps=(5, 20), black_box=square)
    assert honest.strengths == (0.05, 0.1, 0.5) and honest.findings(0.02) == []
    counts = data[1].bincount()
    assert honest.grey_accuracy == float(counts.max()) / 60 and honest.more_steps[-1] <= honest.grey_accuracy
    hidden = attack_curves(Steep(digits_network()), data, [0.05, 0.1], steps=(5, 20), black_box=square)
    signs = {finding.sign for finding in hidden.findings(0.02)}
    assert {Sign.BLACK_BOX_STRONGER, Sign.STANDS_ON_GREY} <= signs


def test_in_the_euclidean_norm_grey_is_half_the_root_of_the_values_away():
    data = tuple(part[:10] for part in digits())
    curves = attack_curves(digits_network(), data, [0.5], Norm.L2, steps=(2, 4))
    assert curves.grey_strength == 5.0 == curves.strengths[-1] and curves.black_box == ()


def test_curves_that_are_none_are_refused():
    with pytest.raises(InvalidArgument, match="expected 3 accuracies each"):
        dataclasses.replace(HONEST, steps=(0.5,))
    with pytest.raises(InvalidArgument, match="rising"):
        dataclasses.replace(HONEST, strengths=(0.3, 0.1, 0.5))
    with pytest.raises(InvalidArgument, match="few and more"):
        attack_curves(digits_network(), digits(), [0.1], steps=(10, 10))
