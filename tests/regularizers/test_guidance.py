"""The guide's decisions on layers whose projected speedups are known, and what becomes of their weights."""

import pytest
import torch
from torch import nn

from spokeshave.errors import CheckpointError, InvalidArgument
from spokeshave.regularizers import Guide, GuidedL1, MagnitudeSchedule, NetworkSurgery
from spokeshave.regularizers.guidance import GuideEvent, Verdict, guide_notes
from spokeshave.structures.roofline_model import MachineRates, projected_speedup, upper_bound

FAST_MEMORY = MachineRates(1e9, alpha=2.0, bytes_per_s=1e12)  # useful below a density of 1/2


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(48, 2))


def guide_of(net: nn.Module, rates: MachineRates = FAST_MEMORY, **options: object) -> Guide:
    guide = Guide(net, torch.zeros(2, 2, 8, 8), rates, **{"every": 2, "patience": 2, **options})
    guide.watch(guide.works)
    return guide


def thin(layer: nn.Conv2d, share: float) -> None:
    with torch.no_grad():
        layer.weight.view(-1)[: round(share * layer.weight.numel())] = 0


def test_a_layer_without_any_projected_speedup_is_never_pulled():
    net = network()
    guide = guide_of(net, MachineRates(1e9, 2.0, 5e8))
    expected = {name: projected_speedup(work, guide.rates, 0.0) > 1 for name, work in guide.works.items()}
    assert expected == {"0": True, "1": True, "3": False}
    assert {name: guide.pulls(name) for name in guide.works} == expected and guide.pulls("unknown")
    assert [(event.step, event.layer, event.what) for event in guide.events] == [(0, "3", Verdict.USELESS)]
    before = net[3].weight.detach().clone()
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    for make in (GuidedL1, NetworkSurgery):
        make(net, strength=10.0, guide=guide).attach(optimizer)
    MagnitudeSchedule(net, 0.9, steps=1, every=1, guide=guide).attach(optimizer)
    net(torch.randn(4, 2, 8, 8)).sum().backward()
    optimizer.step()
    assert torch.equal(net[3].weight, before) and (net[0].weight == 0).float().mean() > 0.8


def test_a_density_that_settled_without_use_gives_the_dense_weights_back():
    net = network()
    guide = guide_of(net, judge_from=6)
    guide.observe(0)
    dense = net[0].weight.detach().clone()
    thin(net[0], 0.3)  # density 0.7: twice the work of a dense FLOP each, no gain
    thin(net[1], 0.8)
    for step in range(1, 6):
        guide.observe(step)
        assert guide.verdicts["0"] is Verdict.PRUNED and (net[0].weight == 0).any()
    guide.observe(6)
    assert guide.verdicts["0"] is Verdict.RESTORED and torch.equal(net[0].weight, dense) and not guide.pulls("0")
    assert guide.verdicts["1"] is Verdict.PRUNED and (net[1].weight == 0).any()
    event = guide.events[0]
    assert (event.step, event.layer, event.what) == (6, "0", Verdict.RESTORED)
    assert event.x == pytest.approx(50 / 72) and event.projected_speedup == pytest.approx(1 / (2 * 50 / 72))


def test_a_density_that_still_falls_is_left_alone():
    net = network()
    guide = guide_of(net)
    for step in range(0, 10, 2):
        thin(net[0], step / 25)
        guide.observe(step)
    assert guide.verdicts["0"] is Verdict.PRUNED


def test_a_layer_past_its_upper_bound_keeps_its_zeros_and_gets_no_more():
    net = network()
    rates = MachineRates(1e9, 2.0, 5e8)
    guide = guide_of(net, rates)
    x_u = upper_bound(guide.works["1"], rates)
    assert 0.1 < x_u < 0.5
    guide.observe(0)
    thin(net[1], 1 - 0.9 * x_u)
    guide.observe(2)
    assert guide.verdicts["1"] is Verdict.HELD and guide.events[-1].x <= x_u
    zeros, before = net[1].weight == 0, net[1].weight.detach().clone()
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    GuidedL1(net, strength=1.0, layers={"1": 1.0}, guide=guide).attach(optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        net(torch.randn(4, 2, 8, 8)).square().mean().backward()
        optimizer.step()
    assert torch.equal(net[1].weight == 0, zeros) and not torch.equal(net[1].weight, before)


def test_layers_that_nobody_prunes_are_not_touched():
    net = network()
    guide = Guide(net, torch.zeros(1, 2, 8, 8), FAST_MEMORY, every=1, patience=2)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    GuidedL1(net, strength=1e-9, layers={"1": 1.0}, guide=guide).attach(optimizer)
    start = [net[0].weight.detach().clone(), net[1].weight.detach().clone()]
    for _ in range(5):
        optimizer.zero_grad()
        net(torch.ones(4, 2, 8, 8)).square().mean().backward()
        moved = [net[0].weight.detach().clone(), net[1].weight.detach().clone()]
        optimizer.step()
    assert not torch.equal(moved[0], start[0]) and guide.verdicts["0"] is Verdict.PRUNED
    assert guide.verdicts["1"] is Verdict.RESTORED


def test_state_goes_through_a_checkpoint_and_decisions_go_on():
    net = network()
    guide = guide_of(net, judge_from=6)
    guide.observe(0)
    dense = net[0].weight.detach().clone()
    thin(net[0], 0.3)
    for step in range(1, 5):
        guide.observe(step)
    other = guide_of(net, judge_from=6)
    other.load_state_dict({name: value.clone() for name, value in guide.state_dict().items()})
    other.observe(5)
    other.observe(6)
    assert other.verdicts["0"] is Verdict.RESTORED and torch.equal(net[0].weight, dense)
    third = guide_of(net, judge_from=6)
    third.load_state_dict(other.state_dict())
    assert third.events == other.events and third.verdicts == other.verdicts and third.step == 6
    with pytest.raises(CheckpointError, match="another model"):
        Guide(nn.Sequential(net[0]), torch.zeros(1, 2, 8, 8), FAST_MEMORY).load_state_dict(guide.state_dict())


def test_a_resumed_guide_decides_by_the_rates_that_it_began_with():
    net, slow = network(), MachineRates(1e9, alpha=10.0 / 3, bytes_per_s=1e12, beta=1.25)
    state = guide_of(net, slow).state_dict()
    other = guide_of(net, FAST_MEMORY, nominal=FAST_MEMORY)
    assert "nominal" in other.machine
    other.load_state_dict(state)
    assert other.rates == slow and "nominal" not in other.machine
    thin(net[0], 0.6)  # density 0.4: of use to the machine at hand, not to the one before
    for step in range(5):
        other.observe(step)
    assert other.verdicts["0"] is Verdict.RESTORED


def test_a_state_from_before_rates_were_kept_belongs_to_the_nominal_machine():
    state = guide_of(network()).state_dict()
    del state["rates"]
    for nominal, expected in ((FAST_MEMORY, FAST_MEMORY), (None, MachineRates(2e9, 3.0, 1e9))):
        guide = guide_of(network(), MachineRates(2e9, 3.0, 1e9), nominal=nominal)
        guide.load_state_dict(state)
        assert guide.rates == expected


def test_events_of_a_shared_guide_come_once_and_read_as_words():
    net = network()
    guide = guide_of(net)
    guide.events.append(GuideEvent(6, "0", Verdict.HELD, 0.25, 3.5))
    pulls = [GuidedL1(net, guide=guide), NetworkSurgery(net, guide=guide), object()]
    machine, event = guide_notes(pulls)
    assert machine == "the guide's machine: 1 GFLOP/s dense, alpha 2, 1e+03 GB/s, beta 2"
    assert event == "step 6: 0 held: more zeros would gain little (density 0.250, projected speedup 3.50)"


def test_bad_settings_are_refused():
    with pytest.raises(InvalidArgument, match="patience of at least 2"):
        guide_of(network(), patience=1)
    with pytest.raises(InvalidArgument, match="every of at least 1"):
        guide_of(network(), every=0)
