"""spokeshave map-crossbar: programs a network into memristor crossbars, prices and exports it, draws it on a page."""

import dataclasses
import json
import shlex
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

from spokeshave.cli.mapping_options import require_files, short_name, shown_settings, some_images
from spokeshave.cli.measure_model import parse_shape
from spokeshave.errors import InvalidArgument

if TYPE_CHECKING:
    from torch import nn

    from spokeshave.data import Batches
    from spokeshave.report.crossbar_page import VariationPoint
    from spokeshave.targets.crossbar.weights_to_tiles import Crossbar

RECORD_FILE = "map.json"


class DeviceKind(Enum):
    """Ready kinds of memristor."""

    IDEAL = "ideal"
    ONE_LEVEL = "one-level"
    N_LEVEL = "n-level"


@dataclasses.dataclass(frozen=True)
class Options:
    """Program a network into memristor crossbars: price, files for other tools, accuracy against variation, a page."""

    model: tyro.conf.Positional[str]
    """package.module:factory or file.py:factory."""
    input: str
    """Shape of one input without the batch, such as 1,28,28."""
    weights: Path | None = None
    """A .safetensors file with the weights."""
    data: str | None = None
    """Name of a data set: measures the test error against variation."""
    data_dir: Path | None = None
    """Folder of the data sets; else SPOKESHAVE_DATA, else they are downloaded."""
    mean: tuple[float, ...] = ()
    """What the model subtracts from each channel (images are 0..1); measured on the training images by default."""
    std: tuple[float, ...] = ()
    """What the model divides each channel by; measured by default."""
    size: tuple[int, int] = (64, 64)
    """Most input and output wires of a crossbar."""
    device: DeviceKind = DeviceKind.IDEAL
    """Kind of memristor: any conductance, two states, or --levels states above off."""
    levels: int | None = None
    """Conductances above off of an n-level device; 16 by default."""
    on_off_ratio: float = 100.0
    """Largest over smallest conductance of a device with levels."""
    variation: float = 0.0
    """Relative sigma of programmed conductances in the exported network (lognormal)."""
    stuck_on: float = 0.0
    """Share of devices that stay at the largest conductance, 0..1."""
    stuck_off: float = 0.0
    """Share of devices that stay at the smallest, 0..1."""
    read_noise: float = 0.0
    """Relative sigma of a conductance at each call."""
    wire_resistance_ohm: float = 0.0
    """Of the piece of wire between neighbouring cells."""
    dac_bits: int | None = None
    """Bits of a tile's inputs; none for exact ones."""
    adc_bits: int | None = None
    """Bits of a tile's outputs; none for exact ones."""
    exclude: tuple[str, ...] = ()
    """Patterns of names of layers that stay digital."""
    sweep: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
    """Variations to measure the test error at."""
    draws: int = 5
    """Draws of all devices at each of them."""
    images: int = 2000
    """Test images to measure with; 0 for all."""
    seed: int = 0
    """Of variation, stuck devices and read noise."""
    out: Path = Path("runs/map-crossbar")
    """Folder for crossbars.json, crossbars.npz, map.json and report.html."""


def command(arguments: list[str]) -> int:
    """Map a network, print its price, write its files and its page.

    Args:
        arguments: the words after `map-crossbar`.

    Returns:
        The exit code.

    Raises:
        InvalidArgument: where an option is not understood or out of range.
        FileError: where the folder cannot be written.
    """
    options = tyro.cli(
        Options, prog="spokeshave map-crossbar", args=arguments, config=(tyro.conf.EnumChoicesFromValues,)
    )
    import torch

    from spokeshave.evaluation import evaluate
    from spokeshave.export import load_safetensors
    from spokeshave.files import atomic_write, require_writable
    from spokeshave.models.named_model import load_model
    from spokeshave.report.crossbar_page import CrossbarRun, write_crossbar_page
    from spokeshave.report.page import PAGE_FILE

    shape, chip = parse_shape(options.input), chip_of(options)
    if options.draws < 1 or options.images < 0 or (options.data and not options.sweep):
        raise InvalidArgument("expected at least one draw, images of 0 or more and variations to sweep")
    if not all(0 <= variation < float("inf") for variation in options.sweep):
        raise InvalidArgument(f"--sweep: expected variations of 0 or more, got {' '.join(map(str, options.sweep))}")
    require_files(weights=options.weights)
    require_writable(options.out)
    model = load_model(options.model).eval()
    if options.weights is not None:
        load_safetensors(model, options.weights)
    test, example = (None, torch.randn(16, *shape, generator=torch.Generator().manual_seed(options.seed)))
    if options.data is not None:
        test, example = images_to_test(options, shape)
    mapped = chip.map(model, example)
    console = Console()
    console.print(mapped.report.table())
    console.print(mapped.cost().table())
    mapped.export(options.out)
    error, points = None, ()
    if test is not None:
        error = 1 - evaluate(model, test).accuracy
        points = variation_sweep(model, chip, example, test, options.sweep, options.draws)
        for point in points:
            console.print(
                f"variation {point.variation:g}: test error {100 * point.mean_error:.2f} +- "
                f"{100 * point.error_spread:.2f} % over {len(point.errors)} draws (digital {100 * error:.2f} %)",
                highlight=False,
            )
    config = shown_settings(options, () if options.data is not None else ("sweep", "draws", "images"))
    run = CrossbarRun(
        short_name(options.model), mapped, config,
        shlex.join(["spokeshave", "map-crossbar", *arguments]), options.data, error,
        0 if test is None else len(test.split), points,
    )  # fmt: skip
    record = {
        "model": run.model,
        "command": run.command,
        "cost": mapped.cost().to_dict(),
        "mapping": mapped.report.to_dict(),
        "digital_error": error,
        "images": run.images,
        "points": [dataclasses.asdict(point) for point in points],
    }
    atomic_write(options.out / RECORD_FILE, json.dumps(record, indent=1) + "\n")
    write_crossbar_page(run, options.out / PAGE_FILE)
    console.print(f"page: {options.out / PAGE_FILE}", highlight=False, soft_wrap=True)
    return 0


def chip_of(options: Options) -> "Crossbar":
    """The chip that the options describe.

    Args:
        options: as typed.

    Raises:
        InvalidArgument: where one is out of its range.
    """
    from spokeshave.targets.crossbar.converters import Converters
    from spokeshave.targets.crossbar.memristor import Memristor
    from spokeshave.targets.crossbar.weights_to_tiles import Crossbar

    faults = {name: getattr(options, name) for name in ("variation", "stuck_on", "stuck_off", "read_noise")}
    if options.levels is not None and options.device is not DeviceKind.N_LEVEL:
        raise InvalidArgument(f"--levels {options.levels} goes with --device {DeviceKind.N_LEVEL.value} only")
    if options.device is DeviceKind.IDEAL:
        device = Memristor(**faults)
    else:
        levels = 1 if options.device is DeviceKind.ONE_LEVEL else 16 if options.levels is None else options.levels
        device = Memristor.n_level(levels, options.on_off_ratio, **faults)
    return Crossbar(
        options.size, device, converters=Converters(options.dac_bits, options.adc_bits), exclude=options.exclude,
        wire_resistance_ohm=options.wire_resistance_ohm, seed=options.seed,
    )  # fmt: skip


def images_to_test(options: Options, shape: tuple[int, ...]) -> tuple["Batches", object]:
    """Batches of test images as the model is fed, and a batch of training images to calibrate on.

    Args:
        options: as typed.
        shape: that the images must have.

    Raises:
        InvalidArgument: where they have another, or mean and std do not fit.
        DataError: where the data set is missing.
    """
    import torch

    from spokeshave.data import Batches, Normalization, load, normalization_of

    assert options.data is not None
    splits = load(options.data, options.data_dir)
    if splits.train.image_shape != shape:
        raise InvalidArgument(
            f"--input {options.input}: the images of {options.data} have shape {splits.train.image_shape}"
        )
    channels = shape[0]
    if (options.mean or options.std) and not len(options.mean) == len(options.std) == channels:
        raise InvalidArgument(f"--mean and --std: give both or neither, {channels} number(s) each")
    normalize = normalization_of(splits.train)
    if options.mean:
        mean, std = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (options.mean, options.std))
        normalize = Normalization(mean, std)
    test = some_images(splits.test, options.images)
    return Batches(test, 250, 0, normalize, shuffle=False), normalize(splits.train.images[:64])


def variation_sweep(
    model: "nn.Module",
    chip: "Crossbar",
    example: object,
    test: "Batches",
    variations: tuple[float, ...],
    draws: int,
) -> "tuple[VariationPoint, ...]":
    """Test error of a network at several variations of its devices.

    Args:
        model: to map.
        chip: whose variation is replaced.
        example: to calibrate converters on.
        test: images.
        variations: relative sigmas.
        draws: of all devices at each, at least 1; a perfect device needs one.
    """
    from spokeshave.evaluation import evaluate
    from spokeshave.report.crossbar_page import VariationPoint

    points = []
    for variation in variations:
        device = dataclasses.replace(chip.device, variation=variation)
        random = variation or device.stuck_on or device.stuck_off or device.read_noise
        chips = [
            dataclasses.replace(chip, device=device, seed=chip.seed + draw) for draw in range(draws if random else 1)
        ]
        errors = tuple(1 - evaluate(one.map(model, example), test).accuracy for one in chips)
        points.append(VariationPoint(variation, errors))
    return tuple(points)
