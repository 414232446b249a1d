"""The GPU's kernels against the definition: on a GPU where there is one, else in Triton's interpreter."""

import os
import subprocess
import sys

import pytest
import torch

from spokeshave.communication.counter_random import stream_key
from spokeshave.communication.digit_packing import (
    Pack,
    code_packing,
    lane_packing,
    pack_digits,
    packed_bytes,
    sum_packing,
)
from spokeshave.communication.ternary_codes import local_scalers
from spokeshave.communication.ternary_loops import tile_rows
from spokeshave.communication.ternary_packing import Place, TernaryCodec
from spokeshave.optional import available

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.skipif(not available("triton"), reason="triton is not installed (.ci/run installs it)")
def test_codes_and_sums_are_those_of_the_definition() -> None:
    # In a process of its own: whether kernels are interpreted is settled when triton is imported.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if DEVICE == "cpu":
        environment["TRITON_INTERPRET"] = "1"
    run = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.split() == ["compared", "14"], run.stderr[-3000:]


def compare() -> int:
    from spokeshave.communication.ternary_triton import TritonCodec

    compared = 0
    plain, triton, sizes = TernaryCodec(), TritonCodec(), (1, 300, 1000, 0)
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randn(size, generator=generator).to(DEVICE) for size in sizes]
    own = local_scalers(plain.statistics(gradients), 2.5)
    keys = [stream_key(0, 1, 2, number) for number in range(len(sizes))]
    for packing in (code_packing(Pack.TWO_BIT), code_packing(Pack.BASE3), lane_packing(2), lane_packing(4)):
        places, row = [], 0
        for size in sizes:
            places.append(Place(row, size, 3 * packing.block_digits))
            row += -(-size // packing.block_digits) * packing.digits
        both = [torch.zeros(row // packing.digits * packing.block_bytes, dtype=torch.uint8, device=DEVICE)] * 2
        both = [one.clone() for one in both]
        for codec, packed in zip((plain, triton), both, strict=True):
            codec.encode(gradients, own * 1.2, own, keys, packing, places, packed)
        assert torch.equal(*both), packing
        means = [[torch.zeros_like(gradient) for gradient in gradients] for _ in range(2)]
        for codec, targets in zip((plain, triton), means, strict=True):
            codec.decode([both[0]], packing, 1, own, places, targets)
        assert all(torch.equal(one, other) for one, other in zip(*means, strict=True)), packing
        compared += 2
    for pack in Pack:
        for workers in (2, 3, 8):
            codes, sums = code_packing(pack), sum_packing(pack, workers)
            rows = tile_rows(codes, sums)
            digits = torch.randint(0, 3, (workers, rows * 32), generator=generator)
            streams = [pack_digits(one, codes).to(DEVICE) for one in digits]
            packed = torch.zeros(packed_bytes(sums, rows * 32), dtype=torch.uint8, device=DEVICE)
            triton.reduce(streams, codes, sums, packed)
            assert torch.equal(packed.cpu(), pack_digits(digits.sum(0), sums)), (pack, workers)
            found = torch.zeros(rows * 32, device=DEVICE)
            triton.decode([packed], sums, workers, torch.ones(1, device=DEVICE), [Place(0, rows * 32)], [found])
            assert torch.equal(found.cpu(), (digits.sum(0) - workers).float())
            compared += 1
    return compared


if __name__ == "__main__":
    print("compared", compare())
