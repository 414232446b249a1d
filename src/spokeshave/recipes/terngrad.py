"""TernGrad: its accuracy tables, ternary gradients against exact ones at equal budget.

Wen, Xu, Yan, Wu, Wang, Chen, Li: TernGrad, NIPS 2017: figure 3 (LeNet on MNIST, 2 to 8 workers), Table 1 (CifarNet on
CIFAR-10, 2 workers). Alone, one process plays the workers; under torchrun they are its processes, and codes travel.
Departs from the paper: fewer steps; Caffe's LeNet, without padding; CifarNet's rate falls to 0 in place of averaged
weights; weight decay is added after the exchange, not ternarized; mean and spread of several seeds.
"""

from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console

from spokeshave.communication.digit_packing import Pack
from spokeshave.communication.hooked_workers import HookedWorkers
from spokeshave.communication.ternary_options import gradient_size
from spokeshave.communication.ternary_wire import Wire
from spokeshave.communication.virtual_workers import VirtualWorkers
from spokeshave.communication.wire_bytes import Exchange, sent_bytes
from spokeshave.data import DatasetName, load
from spokeshave.equal_budget import Course, Pair
from spokeshave.errors import InvalidArgument
from spokeshave.exchange_output import print_exchange, write_exchange, write_exchange_ledger
from spokeshave.processes import is_first, join_processes, usable_device
from spokeshave.recipes.terngrad_rows import ROWS, RowPlan
from spokeshave.road import small_digits
from spokeshave.run_output import command_line, refuse_finished

# Test accuracy, percent; momentum SGD for LeNet, whose values were read off the published figure.
PAPER: dict[str, dict[str, Any]] = {
    "lenet-2": {"workers": 2, "float_accuracy": 99.20, "accuracy": 99.22, "gap": -0.02},
    "lenet-4": {"workers": 4, "float_accuracy": 99.20, "accuracy": 99.09, "gap": 0.11},
    "lenet-8": {"workers": 8, "float_accuracy": 99.20, "accuracy": 99.11, "gap": 0.09},
    "cifarnet-2": {"workers": 2, "float_accuracy": 86.56, "accuracy": 85.64, "gap": 0.92},
}


class Row(Enum):
    """A row of the paper's tables, one without clipping, or the small demonstration."""

    DEMO = "demo"
    LENET_2 = "lenet-2"
    LENET_4 = "lenet-4"
    LENET_8 = "lenet-8"
    CIFARNET_2 = "cifarnet-2"
    CIFARNET_2_NOCLIP = "cifarnet-2-noclip"


@dataclass(frozen=True)
class Config:
    """Options of the TernGrad recipe; 0 or nothing means what the row has."""

    row: Row = Row.DEMO
    """Row of the paper's tables."""
    data: DatasetName | None = None
    """Data set; the row's own by default."""
    data_dir: Path | None = None
    """Folder of the data; else SPOKESHAVE_DATA, else it is downloaded."""
    run_dir: Path | None = None
    """Where checkpoints and the page go; runs/terngrad-<row> by default. Float networks go beside it, to be shared."""
    seeds: tuple[int, ...] = (0,)
    """One float and one ternary network each; errors are means over them."""
    workers: int = 0
    """Workers that one process plays; under torchrun it is the number of processes."""
    clip_factor: float = 0.0
    """c of clipping at c * sigma; inf for no clipping."""
    min_numel: int = 0
    """Parameters of fewer elements travel as floats."""
    wire: Wire = Wire.AUTO
    """How codes travel; alone, only the bytes that are counted depend on it."""
    pack: Pack = Pack.TWO_BIT
    """Bits of a code: 2, or 1.6."""
    steps: int = 0
    """Length of both trainings."""
    learning_rate: float = 0.0
    """At the start."""
    control_only: bool = False
    """Train the float networks only, and print what they score on the validation split: to choose a rate."""
    checkpoint_every: int = 0
    """Steps between checkpoints."""
    device: str = "cpu"
    """Where to train: cpu, cuda, cuda:1."""
    resume: bool = False
    """Go on from the checkpoints in the run's folder."""
    ledger: Path | None = None
    """Folder of the ledger; writes a row there."""
    smoke: bool = False
    """A few steps on the embedded digits: shows that everything works, measures nothing."""


def plan_of(config: Config, processes: int = 1) -> RowPlan:
    """The plan of a row, with what the options change.

    Args:
        config: the options.
        processes: that torchrun started; the workers, where there are several.

    Raises:
        InvalidArgument: for a negative number, no seed, or a batch that the workers cannot share.
    """
    plan = ROWS[config.row.value]()
    lengths = (config.workers, config.steps, config.min_numel, config.checkpoint_every)
    if min(lengths) < 0 or not config.clip_factor >= 0 or not config.learning_rate >= 0 or not config.seeds:
        raise InvalidArgument(
            "expected --workers, --steps, --min-numel, --checkpoint-every, --clip-factor and --learning-rate of at "
            f"least 0 and at least one seed, got {lengths}, {config.clip_factor}, {config.learning_rate} and "
            f"{config.seeds}"
        )
    settings, options = plan.budget.settings, plan.options
    settings = replace(
        settings,
        steps=6 if config.smoke else config.steps or settings.steps,
        learning_rate=config.learning_rate or settings.learning_rate,
        checkpoint_every=config.checkpoint_every or settings.checkpoint_every,
    )
    clip = options.clip_factor if not config.clip_factor else config.clip_factor
    options = replace(
        options,
        clip_factor=None if clip == float("inf") else clip,
        min_numel=config.min_numel or options.min_numel,
    )
    workers = config.workers or (processes if processes > 1 else plan.workers)
    if processes not in (1, workers):
        raise InvalidArgument(f"--workers {workers}: torchrun started {processes} processes; leave the option out")
    if plan.budget.batch_size % workers:
        raise InvalidArgument(f"--workers {workers}: a batch has {plan.budget.batch_size} images, not a multiple")
    return replace(plan, budget=replace(plan.budget, settings=settings), workers=workers, options=options)


def run(config: Config) -> dict[str, Any]:
    """Train float and ternary networks of one row, and compare them.

    Returns:
        The run's record as JSON values; nothing in all processes but the first.

    Raises:
        SpokeshaveError: what is wrong with the options, the data, the run's folder or the training.
    """
    plan = plan_of(config, join_processes()[1])
    run_dir = config.run_dir or Path("runs") / f"terngrad-{config.row.value}"
    refuse_finished(run_dir, config.resume)
    usable_device(config.device)
    splits = small_digits(plan.data) if config.smoke else load(config.data or plan.data, config.data_dir)
    course = Course(plan.budget, splits, run_dir, config.resume, config.device)
    console = Console(highlight=False)
    pairs = []
    for seed in config.seeds:
        exact = course.exact(seed)
        if config.control_only:
            if is_first():
                console.print(f"seed {seed}: float, validation accuracy {exact[1][-1]['validation_accuracy']:.2%}")
            continue
        options = replace(plan.options, seed=seed)
        alone = course.world_size == 1
        exchange = VirtualWorkers(plan.workers, options) if alone else HookedWorkers(options, config.wire, config.pack)
        exchanged = course.exchanged(seed, exchange)
        pairs.append(Pair(seed, course.score(*exact), course.score(*exchanged)))
    if not pairs or not is_first():
        return {}
    size = gradient_size(pairs[0].exchanged.network, plan.options)
    wire = Exchange(config.wire.chosen(plan.workers).value)
    record = write_exchange(
        pairs,
        splits,
        run_dir,
        recipe="terngrad",
        row=config.row.value,
        title=f"TernGrad: {config.row.value} on {splits.name}, {plan.workers} workers",
        config=_settings(config, plan) | {"wire": wire.value},
        float_bytes=round(sent_bytes(Exchange.FLOAT32, size, plan.workers)),
        sent_bytes=round(sent_bytes(wire, size, plan.workers, config.pack)),
        paper=PAPER.get(config.row.value),
        command=command_line(["spokeshave", "run", "terngrad"], config),
    )
    print_exchange(record, run_dir, console)
    if config.ledger is not None:
        write_exchange_ledger(record, config.ledger)
    return asdict(record)


def _settings(config: Config, plan: RowPlan) -> dict[str, Any]:
    """What a reader needs to know of a run, as JSON values."""
    budget, options = plan.budget, plan.options
    return {
        "workers": plan.workers, "exchange": options.to_dict(), "pack": config.pack.value,
        "batch_size": budget.batch_size, "validation_images": budget.validation,
        "augment": None if budget.augment is None else asdict(budget.augment),
        "normalize": budget.normalize.to_dict(), "training": budget.settings.to_dict(), "smoke": config.smoke,
    }  # fmt: skip
