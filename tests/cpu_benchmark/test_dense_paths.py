"""What torch is timed with computes the same as the step that it stands for."""

import pytest
import torch
from torch import Tensor, nn

from cpu_benchmark_cases import SHAPE, Shortcut
from sparse_cases import error, steps_of
from spokeshave.cpu_benchmark.dense_paths import Activations, TorchPaths, squeezed_layer
from spokeshave.targets.cpu_sparse.network_steps import Convolve, Multiply
from spokeshave.targets.cpu_sparse.reference_steps import run_step


def weighted_steps(model: nn.Module):
    network = steps_of(model, torch.zeros(1, *SHAPE))
    return network, [step for step in network.steps if isinstance(step, Convolve | Multiply)]


@pytest.mark.parametrize("images", [1, 5])
def test_every_form_computes_the_step(images):
    torch.manual_seed(0)
    network, steps = weighted_steps(Shortcut())
    activations = Activations(network, images)
    squeezed = []
    for step in steps:
        paths = TorchPaths.of(step, network)
        values = activations.of(step)
        wanted = run_step(step, [value.double() for value in values])
        copies = [value.clone() for value in values]
        forms: list[Tensor] = [paths.dense(*values)]
        if paths.dense_last is not None:
            last = activations.of(step, channels_last=True)
            lasts = run_step(step, [value.double() for value in last])
            assert error(paths.dense_last(*last), lasts) < 1e-5
            assert images == 1 or last[0].is_contiguous(memory_format=torch.channels_last)
        if paths.squeezed is not None:
            squeezed.append(step.layer)
            forms.append(paths.squeezed(*values))
        assert all(error(form, wanted) < 1e-5 for form in forms)
        assert all(torch.equal(value, copy) for value, copy in zip(values, copies, strict=True))
    assert squeezed == ["second"] and len(steps[1].inputs) == 2


def test_rows_and_columns_of_a_linear_layer_and_of_groups():
    model = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.Flatten(), nn.Linear(600, 4))
    with torch.no_grad():
        model[0].weight[0] = 0
        model[2].weight[:, :7] = 0
    network, (convolution, linear) = weighted_steps(model)
    left = squeezed_layer(linear, network.shapes)
    assert isinstance(left, nn.Linear) and left.weight.shape == (4, 593)
    form = squeezed_layer(convolution, network.shapes)
    x = torch.randn(2, *SHAPE)
    assert form is not None and error(form(x), run_step(convolution, [x.double()])) < 1e-5


def test_a_layer_of_zeros_is_not_squeezed():
    model = nn.Sequential(nn.Conv2d(3, 6, 3))
    nn.init.zeros_(model[0].weight)
    network, (step,) = weighted_steps(model)
    assert squeezed_layer(step, network.shapes) is None
