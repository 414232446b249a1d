"""What the tests of the sparse engine share: the sets of instructions of this CPU, and a network through one layout."""

import numpy as np
import torch
from torch import Tensor, nn

from spokeshave.jit.host_cpu import VectorSet, host_cpu
from spokeshave.structures.graph_tracing import trace
from spokeshave.targets.cpu_sparse.batch_lanes_engine import BatchLanesEngine
from spokeshave.targets.cpu_sparse.lowering import lower
from spokeshave.targets.cpu_sparse.network_steps import NetworkSteps
from spokeshave.targets.cpu_sparse.pixel_lanes_engine import PixelLanesEngine
from spokeshave.targets.cpu_sparse.segment import Layout
from spokeshave.targets.cpu_sparse.step_fusion import fuse

SETS = [vectors for vectors in VectorSet if host_cpu().supports(vectors)]
X86_SETS = [vectors for vectors in SETS if vectors is not VectorSet.NEON]
LAYOUTS: list[Layout] = [BatchLanesEngine, PixelLanesEngine]


def steps_of(network: nn.Module, images: Tensor) -> NetworkSteps:
    return fuse(lower(trace(network.eval(), images[:1])))


def through(
    layout: Layout, network: nn.Module, images: Tensor, vectors: VectorSet, threads: int = 1, poison: float = np.nan
) -> Tensor:
    """The only output of a network; all memory holds `poison` before."""
    engine = layout(steps_of(network, images), vectors, threads)
    engine.arena[:] = poison
    engine.scratch[:] = poison
    data = np.ascontiguousarray(images.numpy())
    shape = engine.network.shapes[engine.network.outputs[0]]
    results = np.full((len(images), *shape), np.nan, np.float32)
    step = vectors.lanes if layout is BatchLanesEngine else 1
    for start in range(0, len(images), step):
        part = slice(start, min(start + step, len(images)))
        engine([data[part]], [results[part]])
    return torch.from_numpy(results)


def in_double(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        result = network.double()(images.double())
    network.float()
    return result


def error(got: Tensor, wanted: Tensor) -> float:
    if not wanted.numel():
        return 0.0
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp(min=1e-30))


def thin(network: nn.Module, density: float, seed: int = 0) -> nn.Module:
    """Zero weights of convolutions and linear layers at random."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.mul_(torch.rand(module.weight.shape, generator=generator) < density)
    return network.eval()
