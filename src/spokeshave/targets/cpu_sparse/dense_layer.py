"""Dense layer: a convolution or linear layer of a sparse network that torch runs, since that is faster.

The same step as the generated code would run (batch normalization folded, shortcut and ReLU included), on a weight that
is made dense once.
"""

import torch
from torch import Tensor

from spokeshave.targets.cpu_sparse.network_steps import Convolve, Multiply
from spokeshave.targets.cpu_sparse.reference_steps import run_step


class DenseLayer:
    """One step, run by torch.

    Args:
        step: of the network.

    Attributes:
        layer: its name.
        inputs: names of the values it reads.
        output: name of the value it makes.
    """

    def __init__(self, step: Convolve | Multiply) -> None:
        self.step = step
        self.layer, self.inputs, self.output = step.layer, step.inputs, step.output
        self._weight = torch.from_numpy(step.weight.dense())

    def __call__(self, values: list[Tensor]) -> Tensor:
        """Compute.

        Args:
            values: float32, [images, ...], in the order of `inputs`.
        """
        return run_step(self.step, values, self._weight)
