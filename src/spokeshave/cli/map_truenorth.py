"""spokeshave map-truenorth: puts copies of a network on neurosynaptic cores, measures and prices them, draws a page."""

import copy
import dataclasses
import json
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

from spokeshave.cli.mapping_options import require_files, short_name, shown_settings, some_images
from spokeshave.errors import DataError, InvalidArgument

# Enums stand in the types of options, which tyro looks at when it is called.
from spokeshave.targets.truenorth.layers_to_cores import CHIP_SIDE
from spokeshave.targets.truenorth.spike_coding import SpikeCode
from spokeshave.targets.truenorth.spike_simulator import Engine

if TYPE_CHECKING:
    from torch import Tensor

    from spokeshave.data import Batches
    from spokeshave.report.deployed_accuracy import DeployedAccuracy
    from spokeshave.targets.truenorth.deployed_network import DeployedNetwork, TrueNorth
    from spokeshave.targets.truenorth.tea_network import TeaNetwork

RECORD_FILE = "map.json"
RANC_FILES = {"network": "ranc_input.json", "configuration": "ranc_config.json", "answer": "ranc_output.txt"}
"""What RANC's simulator reads, and what it has to write for the first image."""

_BATCH = 2048
"""Bit planes run some hundred images in a register."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Put copies of a network on neurosynaptic cores: accuracy by copies and spikes per frame, price, a page."""

    model: tyro.conf.Positional[str]
    """package.module:factory or file.py:factory of a TeaNetwork, or the .safetensors file of one."""
    weights: Path | None = None
    """A .safetensors file with what it learned."""
    before: Path | None = None
    """Another one, of the same network trained without biasing: drawn beside."""
    data: str | None = None
    """Name of a data set: measures the accuracy."""
    data_dir: Path | None = None
    """Folder of the data sets; else SPOKESHAVE_DATA, else they are downloaded."""
    copies: int = 16
    """Copies of the network, each with connections of its own; fewer are measured too."""
    spikes_per_frame: int = 16
    """Ticks that an image is shown for; fewer are measured too."""
    code: SpikeCode = SpikeCode.STOCHASTIC
    """How pixels become spikes."""
    shared_input: bool = False
    """All copies see the same input spikes."""
    images: int = 2000
    """Test images to measure with; 0 for all."""
    draws: int = 1
    """Draws of all connections and input spikes to measure with."""
    seed: int = 0
    """Of the first of them."""
    chip_side: int = CHIP_SIDE
    """Cores along each side of the chip."""
    engine: Engine = Engine.AUTO
    """What runs the ticks."""
    device: str = "cpu"
    """Where: cpu, cuda, cuda:1."""
    ranc: bool = False
    """Write one copy as RANC's simulator reads it, with spikes of the first image and the answer to them."""
    out: Path = Path("runs/map-truenorth")
    """Folder for map.json, report.html and RANC's files."""


def command(arguments: list[str]) -> int:
    """Map a network, measure it, print its price, write its files and its page.

    Args:
        arguments: the words after `map-truenorth`.

    Returns:
        The exit code.

    Raises:
        InvalidArgument: where an option is not understood or out of range, or the copies do not fit the chip.
        UnsupportedLayer: for a model that is no network of Tea layers.
        FileError: where the folder cannot be written.
    """
    options = tyro.cli(
        Options, prog="spokeshave map-truenorth", args=arguments, config=(tyro.conf.EnumChoicesFromValues,)
    )
    from spokeshave.export import load_safetensors
    from spokeshave.files import atomic_write, require_writable
    from spokeshave.report.connection_probabilities import probabilities_by_layer
    from spokeshave.report.page import PAGE_FILE
    from spokeshave.report.truenorth_page import TrueNorthRun, write_truenorth_page

    chip = chip_of(options)
    if options.draws < 1 or options.images < 0:
        raise InvalidArgument(
            f"expected --draws of 1 or more and --images of 0 or more, got {options.draws} and {options.images}"
        )
    require_files(weights=options.weights, before=options.before)
    require_writable(options.out)
    network, before = network_of(options.model).eval(), None
    if options.before is not None:
        before = copy.deepcopy(network)
        load_safetensors(before, options.before)
        try:
            chip.map(before)
        except InvalidArgument as error:
            raise InvalidArgument(f"--before {options.before}: {error}") from error
    if options.weights is not None:
        load_safetensors(network, options.weights)
    deployed = chip.map(network)
    test = None if options.data is None else images_to_test(options, network)
    shown = None if test is None else next(iter(test))[0]
    console = Console()
    console.print(deployed.cost().table())
    if options.ranc:
        write_ranc_files(dataclasses.replace(chip, copies=1).map(network), shown, options.out, options.seed)
    run = TrueNorthRun.of(
        short_name(options.model), network, chip, shown,
        shown_settings(options, () if options.data is not None else ("draws", "images")),
        shlex.join(["spokeshave", "map-truenorth", *arguments]), deployed,
        data=options.data, files=({"numbers": RECORD_FILE} | (RANC_FILES if options.ranc else {})),
        before_layers=() if before is None else probabilities_by_layer(before),
    )  # fmt: skip
    if test is not None:
        accuracy = measure(network, chip, test, options.draws, deployed)
        run = dataclasses.replace(run, accuracy=accuracy, images=len(test.split))
        say(console, accuracy, "" if before is None else "with biasing, ")
        if before is not None:
            run = dataclasses.replace(run, before_accuracy=measure(before, chip, test, options.draws))
            assert run.before_accuracy is not None
            say(console, run.before_accuracy, "without biasing, ")
    record = {"model": run.model, "command": run.command, **run.to_dict()}
    atomic_write(options.out / RECORD_FILE, json.dumps(record, indent=1) + "\n")
    write_truenorth_page(run, options.out / PAGE_FILE)
    console.print(f"page: {options.out / PAGE_FILE}", highlight=False, soft_wrap=True)
    return 0


def chip_of(options: Options) -> "TrueNorth":
    """The chip that the options describe.

    Args:
        options: as typed.

    Raises:
        InvalidArgument: where one is out of its range.
    """
    from spokeshave.targets.truenorth.deployed_network import TrueNorth

    names = [field.name for field in dataclasses.fields(TrueNorth)]
    return TrueNorth(**{name: getattr(options, name) for name in names})


def network_of(name: str) -> "TeaNetwork":
    """The network that a name or a file means.

    Args:
        name: as typed.

    Raises:
        UnsupportedLayer: it is no network of Tea layers.
        InvalidArgument: nothing is found under the name.
        CheckpointError: the file is damaged.
        DataError: the file holds other weights than those of a Tea network.
    """
    from safetensors.torch import load_file

    from spokeshave.export import describe_safetensors
    from spokeshave.models.named_model import load_model
    from spokeshave.targets.truenorth.tea_network import TeaNetwork

    path = Path(name)
    if path.suffix != ".safetensors":
        return require_tea(load_model(name))
    require_files(model=path)
    describe_safetensors(path)
    try:
        return TeaNetwork.of(load_file(path))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def require_tea(model: object) -> "TeaNetwork":
    """See that a model can be put on cores.

    Args:
        model: of any kind.

    Raises:
        UnsupportedLayer: it is no network of Tea layers.
    """
    from torch import nn

    from spokeshave.targets.truenorth.deployed_network import TrueNorth
    from spokeshave.targets.truenorth.tea_network import TeaNetwork

    assert isinstance(model, nn.Module)
    if not isinstance(model, TeaNetwork):
        TrueNorth().map(model)
        raise AssertionError("the target takes networks of Tea layers only")
    return model


def images_to_test(options: Options, network: "TeaNetwork") -> "Batches":
    """Batches of test images with pixels in 0..1.

    Args:
        options: as typed.
        network: that they are for.

    Raises:
        InvalidArgument: where the images have another size, or more classes than the network votes for.
        DataError: where the data set is missing.
    """
    from spokeshave.data import Batches, load

    assert options.data is not None
    splits = load(options.data, options.data_dir)
    pixels, classes = math.prod(splits.test.image_shape), int(splits.test.labels.max()) + 1
    if pixels != network.pixels or classes > network.classes:
        raise InvalidArgument(
            f"--data {options.data}: images of shape {splits.test.image_shape} ({pixels} pixels) in {classes} classes; "
            f"the network takes {network.pixels} pixels and votes for {network.classes} classes"
        )
    return Batches(some_images(splits.test, options.images), _BATCH, shuffle=False)


def measure(
    network: "TeaNetwork", chip: "TrueNorth", test: "Batches", draws: int, first: "DeployedNetwork | None" = None
) -> "DeployedAccuracy":
    """Accuracy of a network, and of its copies on a chip.

    Args:
        network: to map.
        chip: whose seed is counted up from draw to draw.
        test: images.
        draws: of all connections and input spikes, at least 1.
        first: of them, where it was made already.
    """
    import torch

    from spokeshave.evaluation import evaluate
    from spokeshave.report.deployed_accuracy import DeployedAccuracy

    found = []
    for draw in range(draws):
        made = first if first and not draw else dataclasses.replace(chip, seed=chip.seed + draw).map(network)
        found.append(made.accuracy_grid(test))
    with torch.no_grad():
        return DeployedAccuracy(evaluate(network, test).accuracy, torch.stack(found))


def say(console: Console, accuracy: "DeployedAccuracy", whose: str) -> None:
    """Print accuracies at the corners, and what comes near the best of them.

    Args:
        console: to print on.
        accuracy: of a network.
        whose: words before each line, where there are two networks.
    """
    from spokeshave.report.deployed_accuracy import counted

    lines = [f"float network: right on {100 * accuracy.floating:.2f} %"]
    for copies, spikes in accuracy.corners():
        mean, spread = accuracy.at(copies, spikes)
        often = f" +- {100 * spread:.2f}" if len(accuracy.draws) > 1 else ""
        lines.append(f"{counted(copies, 'copy')}, {counted(spikes, 'spike')} per frame: {100 * mean:.2f}{often} %")
    enough = accuracy.enough()
    lines.append(
        f"within 0.1 points of the best of all these copies and spikes ({100 * accuracy.best:.2f} %): "
        f"at 1 spike per frame {counted(enough.copies, 'copy', 'no number of copies')}, "
        f"with 1 copy {counted(enough.spikes, 'spike', 'no number of spikes')} per frame"
    )
    for line in lines:
        console.print(whose + line, highlight=False, soft_wrap=True)


def write_ranc_files(one: "DeployedNetwork", images: "Tensor | None", out: Path, seed: int) -> None:
    """Write one copy for RANC's simulator.

    Args:
        one: a copy on a chip.
        images: 0..1, of which the first is coded; None for noise.
        out: folder.
        seed: of the input spikes.

    Raises:
        InvalidArgument: the network has what RANC lacks; names the first core and neuron.
        FileError: where they cannot be written.
    """
    import numpy as np
    import torch

    from spokeshave.targets.truenorth.ranc_files import write_ranc, write_ranc_output
    from spokeshave.targets.truenorth.ranc_network import RancNetwork
    from spokeshave.targets.truenorth.spike_simulator import SpikeSimulator

    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, one.pixels, generator=generator) if images is None else images[:1].flatten(1)
    spikes = one.input_spikes(image, 1, one.spikes_per_frame, np.random.default_rng(seed))
    mapped = one.mapped
    left = SpikeSimulator(mapped.grid, mapped.inputs).run(spikes, one.spikes_per_frame + one.depth - 1).outputs[0]
    network = RancNetwork.given(mapped.grid, mapped.inputs, spikes)
    write_ranc(network, out / RANC_FILES["network"], out / RANC_FILES["configuration"])
    write_ranc_output(left, out / RANC_FILES["answer"])
