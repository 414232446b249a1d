"""What the benchmark counts, on tensors whose bytes are known."""

import os
import subprocess
import sys

import torch
from adversarial_structures import alive_at_most, network_of, random_images


def test_the_largest_sum_of_bytes_alive_is_counted_and_what_was_there_before_is_not() -> None:
    before = torch.ones(100_000)

    def step() -> None:
        one = torch.ones(1000)
        two = torch.ones(2000)
        del one
        three = torch.ones(500)
        del two, three
        before.add_(1)

    assert alive_at_most(step) == 4 * 3000


def test_resident_memory_rises_with_what_is_touched() -> None:
    # In a process of its own: what other tests have used and left would hide it.
    code = "from adversarial_structures import high_water; import torch; before = high_water(); "
    code += "touched = torch.ones(2**26); print((high_water() - before) / touched.nbytes)"
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=where)
    assert 0.9 < float(done.stdout) < 1.5


def test_images_fit_the_network() -> None:
    for kind, parameters in (("mnist", 166_406), ("cifar10", 214_918)):
        network, images = network_of(kind), random_images(kind, 3).images
        assert network(images / 255).shape == (3, 10)
        assert sum(parameter.numel() for parameter in network.parameters()) == parameters
