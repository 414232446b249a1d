"""The rows of recipe `truenorth`: test bench, neurons of a core, training, strengths of the penalties.

Chosen on the validation split of seed 0. The paper says neither how many neurons of a core vote nor how strong the
penalty is: with 10 neurons a core (one vote a class and core) plain Tea loses some twenty-five points in a single copy
with one spike per frame, with 20 about ten, with 40 about five, as in the paper, with 250 less than one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from spokeshave.data import DatasetName
from spokeshave.float_networks import FloatNetwork, in_shares
from spokeshave.targets.truenorth.tea_benches import mnist_bench_1, mnist_bench_2, mnist_bench_3, rs130_bench_4
from spokeshave.targets.truenorth.tea_network import TeaNetwork
from spokeshave.train_settings import OptimizerName, TrainSettings

Bench = Callable[..., TeaNetwork]


@dataclass(frozen=True)
class RowPlan:
    """What a row does.

    Attributes:
        bench: makes the network; called with `neurons` and `replicas`.
        data: the set that it is trained on.
        neurons: of a core of the last layer.
        settings: of every training.
        bias: strength of the paper's penalty at the end.
        variance: of the variance penalty.
        l1: of the L1 penalty.
        replicas: numbers of cores for each block in the arms with replicas.
        draws: deployments that accuracies are means over.
        rounded_from_tea: rounded arms go on from the network that Tea trained, not from the start.
        validation: images held out of the training split.
    """

    bench: Bench
    data: DatasetName
    neurons: int
    settings: TrainSettings
    bias: float
    variance: float
    l1: float
    replicas: tuple[int, ...] = (3, 5)
    draws: int = 3
    rounded_from_tea: bool = False
    validation: int = 5000

    def start(self, replicas: int = 1) -> FloatNetwork:
        """The network and its training, as plain Tea does it."""
        name = f"tea-{self.bench.__name__}-{self.neurons}" + (f"x{replicas}" if replicas > 1 else "")
        made = partial(self.bench, neurons=self.neurons, replicas=replicas)
        return FloatNetwork(name, made, self.data, self.settings, in_shares, None, self.validation)


_TEA = TrainSettings(
    epochs=12, learning_rate=0.05, optimizer=OptimizerName.ADAM, weight_decay=0.0, checkpoint_every=200
)  # fmt: skip


def _bench_1(neurons: int = 20, strength: float = 3e-4) -> RowPlan:
    return RowPlan(mnist_bench_1, DatasetName.MNIST, neurons, _TEA, strength, strength, 1e-5)


def _bench_2() -> RowPlan:
    return replace(_bench_1(10), bench=mnist_bench_2, settings=replace(_TEA, epochs=6), replicas=(3,))


def _bench_3() -> RowPlan:
    settings = replace(_TEA, epochs=3, learning_rate=0.02)
    row = replace(_bench_1(), bench=mnist_bench_3, settings=settings, replicas=(), rounded_from_tea=True)
    return replace(row, bias=2e-5, variance=1e-4)


def _bench_4() -> RowPlan:
    rs130 = replace(_bench_1(), bench=rs130_bench_4, data=DatasetName.RS130, neurons=21, replicas=(), validation=2000)
    return replace(rs130, settings=replace(_TEA, epochs=24))


def _demo() -> RowPlan:
    """Bench 1 on the embedded digits."""
    settings = replace(_TEA, epochs=20)
    row = replace(_bench_1(strength=3e-3), data=DatasetName.DIGITS, settings=settings)
    return replace(row, replicas=(3,), validation=300)


ROWS: dict[str, Callable[[], RowPlan]] = {
    "demo": _demo, "bench-1-10": partial(_bench_1, 10, 1e-3), "bench-1": _bench_1,
    "bench-1-40": partial(_bench_1, 40, 1e-4), "bench-2": _bench_2, "bench-3": _bench_3, "bench-4": _bench_4,
}  # fmt: skip
