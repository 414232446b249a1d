"""ROC, the area under it and thresholds against scikit-learn and counting by hand."""

import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as peer_curve

from spokeshave.errors import InvalidArgument
from spokeshave.threats.detection_scores import area_under_roc, found_share, roc_curve, threshold_for


def drawn(seed: int, ties: bool) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean, poison = torch.randn(211, generator=generator), torch.randn(37, generator=generator) + 1
    return (clean.round(), poison.round()) if ties else (clean, poison)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_area_and_curve_are_scikit_learns(seed, ties):
    clean, poison = drawn(seed, ties)
    truth = torch.cat([torch.zeros(len(clean)), torch.ones(len(poison))])
    scores = torch.cat([clean, poison])
    assert area_under_roc(clean, poison) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    false_alarms, found, _ = peer_curve(truth, scores, drop_intermediate=False)
    mine = roc_curve(clean, poison)
    assert mine.false_alarms.tolist() == pytest.approx(false_alarms.tolist())
    assert mine.found.tolist() == pytest.approx(found.tolist())
    assert torch.trapezoid(mine.found, mine.false_alarms).item() == pytest.approx(area_under_roc(clean, poison))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.29, 0.5, 0.999])
@pytest.mark.parametrize("ties", [False, True])
def test_the_threshold_is_the_least_that_keeps_the_share(share, ties):
    clean, _ = drawn(0, ties)
    threshold = threshold_for(clean, share)
    assert (clean > threshold).double().mean() <= share
    lower = clean[clean < threshold]
    assert not len(lower) or (clean > lower.max()).double().mean() > share


def test_found_share_is_read_off_the_curve():
    clean, poison = drawn(1, False)
    curve = roc_curve(clean, poison)
    within = curve.false_alarms <= 0.05
    assert found_share(clean, poison, 0.05) == pytest.approx(curve.found[within].max().item())


def test_apart_and_equal_scores_have_areas_of_one_and_a_half():
    zeros = torch.zeros(5)
    assert area_under_roc(zeros, zeros + 1) == 1 and area_under_roc(zeros, zeros - 1) == 0
    assert area_under_roc(zeros, zeros) == 0.5 and found_share(zeros, zeros) == 0
    assert area_under_roc(zeros, zeros + torch.inf) == 1


def test_what_has_no_answer_is_refused():
    some, none, broken = torch.zeros(3), torch.zeros(0), torch.tensor([0.0, torch.nan])
    for clean, poison in ((none, some), (some, none), (broken, some), (some, broken)):
        for measure in (area_under_roc, roc_curve, found_share):
            with pytest.raises(InvalidArgument, match="at least one and no NaN"):
                measure(clean, poison)
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(InvalidArgument, match="false_positive_share"):
            threshold_for(some, share)
