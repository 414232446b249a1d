"""spokeshave adapt: trains a network on a folder of labelled images so that it is right on another folder's images."""

import csv
import dataclasses
import io
import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

from spokeshave.cli.mapping_options import require_files
from spokeshave.large_blocks import keep_large_blocks

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spokeshave.adaptation.adaptation_objective import Terms
    from spokeshave.adaptation.domain_folders import DomainFolders
    from spokeshave.data.normalization import Normalization

_NAMED = 5
"""Damaged images that are printed by name; all are counted."""


class Network(Enum):
    """Networks that are at hand."""

    COMPACT = "compact"
    GOOGLENET = "googlenet"
    SQUEEZENET = "squeezenet"


@dataclasses.dataclass(frozen=True)
class Options:
    """Adapt a network from labelled images of one domain to images of another: weights, answers, how sure they are."""

    source: Path
    """Folder with a subfolder of images for each class."""
    target: Path
    """Folder of images of the other domain; subfolders, if any, have the same names, and only measure accuracy."""
    network: Network = Network.COMPACT
    """Network to train; --model takes any other."""
    model: str | None = None
    """package.module:factory or file.py:factory of a network of your own, which gives one number a class."""
    weights: Path | None = None
    """A .safetensors file with weights to start from."""
    size: int = 64
    """Height and width that images are scaled to, in pixels; the networks at hand take 32, 64 and 224."""
    channels: int = 3
    """3 for colour, 1 for grey."""
    epochs: int = 20
    """Passes over the source."""
    batch_size: int = 32
    """Images of each domain a step."""
    learning_rate: float = 1e-3
    """Of Adam."""
    adversarial: float = 1.0
    """How strongly features are drawn to what a domain classifier cannot tell; 0 leaves the term out, as below."""
    mmd: float = 1.0
    """Weight of the kernel mean discrepancy of both domains."""
    coral: float = 0.0
    """Weight of the distance of covariances."""
    wasserstein: float = 0.0
    """Weight of the sliced Wasserstein distance."""
    entropy: float = 0.1
    """Weight of the entropy of target answers."""
    diversity: float = 0.1
    """Weight of their balance over classes."""
    residual: bool = False
    """Learn a correction between scores of the source and of the target."""
    seed: int = 0
    """Of weights and batches."""
    device: str = "cpu"
    """Where to train: cpu, cuda, cuda:1."""
    run_dir: Path = Path("runs/adapt")
    """Folder for checkpoints, adapted.safetensors, adapted.json (how images are fed) and answers.csv."""
    resume: bool = False
    """Go on from the checkpoint in it."""


def command(arguments: list[str]) -> int:
    """Adapt, write weights and answers, print what was found.

    Args:
        arguments: the words after `adapt`.

    Returns:
        The exit code.

    Raises:
        SpokeshaveError: what is wrong with the options, the folders, the network or the training.
    """
    options = tyro.cli(Options, prog="spokeshave adapt", args=arguments, config=(tyro.conf.EnumChoicesFromValues,))
    import torch

    from spokeshave.adaptation.adapt import Feeding, adapt
    from spokeshave.adaptation.domain_folders import read_domain_folders
    from spokeshave.adaptation.feature_layer import scores_of
    from spokeshave.checkpoints import require_same_start
    from spokeshave.data.normalization import Normalization
    from spokeshave.errors import InvalidArgument
    from spokeshave.export import load_safetensors, safetensors_bytes
    from spokeshave.files import atomic_write, require_writable
    from spokeshave.train_settings import OptimizerName, TrainSettings

    keep_large_blocks()
    require_files(weights=options.weights)
    require_writable(options.run_dir)
    terms = terms_of(options)
    folders = read_domain_folders(options.source, options.target, options.size, options.channels)
    console = Console(highlight=False)
    describe(folders, console)
    torch.manual_seed(options.seed)
    network = network_of(options, len(folders.classes))
    if options.weights is not None:
        load_safetensors(network, options.weights)
    require_same_start(options.run_dir, network.state_dict(), options.resume)
    normalize, abroad = Normalization.per_channel(folders.source), Normalization.per_channel(folders.target)
    feeding = Feeding(options.batch_size, normalize, abroad, device=options.device)
    outputs = scores_of(network, normalize(folders.source.images[:2])).shape[1]
    if outputs != len(folders.classes):
        raise InvalidArgument(
            f"model: {type(network).__name__} gives {outputs} numbers an image, and the source has "
            f"{len(folders.classes)} classes ({', '.join(folders.classes)}); give its last layer as many outputs"
        )
    settings = TrainSettings(
        epochs=options.epochs, learning_rate=options.learning_rate, optimizer=OptimizerName.ADAM, weight_decay=0.0,
        warmup_epochs=min(1.0, options.epochs / 10), checkpoint_every=100, seed=options.seed,
    )  # fmt: skip
    made = adapt(
        network, folders.source, folders.target, terms, settings, feeding, options.residual,
        run_dir=options.run_dir, resume=options.resume,
    )  # fmt: skip
    batches = feeding.batches(folders.target, 0, target=True, training=False)
    with torch.no_grad():
        logits = torch.cat([made.network(images).cpu() for images, _ in batches])
    atomic_write(options.run_dir / "adapted.safetensors", safetensors_bytes(made.network))
    atomic_write(options.run_dir / "adapted.json", how_to_feed(options, folders, abroad))
    atomic_write(options.run_dir / "answers.csv", answers(folders, logits))
    report(folders, logits, console)
    written = {"adapted.safetensors": "weights", "adapted.json": "how to feed it", "answers.csv": "answers"}
    for name, what in written.items():
        console.print(f"{what}: {options.run_dir / name}", soft_wrap=True, markup=False)
    return 0


def terms_of(options: Options) -> "Terms":
    """The terms that the options weigh.

    Raises:
        InvalidArgument: for a weight below 0 or not finite.
    """
    from spokeshave.adaptation.adaptation_objective import Term, Terms

    return Terms(**{part.name: Term(getattr(options, part.name)) for part in dataclasses.fields(Terms)})


def network_of(options: Options, classes: int) -> "nn.Module":
    """The untrained network.

    Raises:
        InvalidArgument: where it cannot be made, or takes other sizes.
    """
    from spokeshave.models import CompactNet, GoogLeNet, SqueezeNet
    from spokeshave.models.named_model import load_model

    if options.model is not None:
        return load_model(options.model)
    if options.network is Network.SQUEEZENET:
        return SqueezeNet(classes, options.size, options.channels, batch_norm=True)
    kind = {Network.COMPACT: CompactNet, Network.GOOGLENET: GoogLeNet}[options.network]
    return kind(classes, options.size, channels=options.channels)


def describe(folders: "DomainFolders", console: Console) -> None:
    """Say what was read, and what was left out."""
    known = "with labels, which only measure" if folders.target_labelled else "without labels"
    console.print(
        f"source: {len(folders.source)} images of {len(folders.classes)} classes; target: {len(folders.target)} images "
        f"{known}",
        soft_wrap=True,
    )
    grey = folders.grey
    shares = [count / len(split) for count, split in zip(grey, (folders.source, folders.target), strict=True)]
    if folders.source.image_shape[0] == 3 and abs(shares[0] - shares[1]) > 0.1:
        console.print(
            f"grey among them: {grey[0]} of the source, {grey[1]} of the target; consider --channels 1", soft_wrap=True
        )
    if folders.skipped:
        console.print(f"left out, damaged: {len(folders.skipped)}", style="yellow")
        for one in folders.skipped[:_NAMED]:
            console.print(f"  {one}", soft_wrap=True, markup=False, style="yellow")


def how_to_feed(options: Options, folders: "DomainFolders", normalize: "Normalization") -> str:
    """The network, its images and its answers, as JSON: what its weights are of no use without."""
    facts = {
        "network": options.model or options.network.value,
        "classes": folders.classes,
        "channels": options.channels,
        "size": options.size,
        "input": "(pixels / 255 - mean) / std",
        "mean": normalize.mean.flatten().tolist(),
        "std": normalize.std.flatten().tolist(),
    }
    return json.dumps(facts, indent=2) + "\n"


def answers(folders: "DomainFolders", logits: "Tensor") -> str:
    """A line for each target image: file, class, and how sure the network is of it."""
    import torch

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["file", "answer", "probability"])
    best = torch.softmax(logits, 1).max(1)
    for file, share, place in zip(folders.target_files, best.values.tolist(), best.indices.tolist(), strict=True):
        writer.writerow([file, folders.classes[place], f"{share:.4f}"])
    return text.getvalue()


def report(folders: "DomainFolders", logits: "Tensor", console: Console) -> None:
    """Print accuracy where labels are known, and how the answers spread over classes."""
    import torch

    found = logits.argmax(1)
    if folders.target_labelled:
        right = float((found == folders.target.labels).float().mean())
        console.print(f"accuracy on the target: {right:.2%}, by labels that the training has not seen")
    counts = torch.bincount(found, minlength=len(folders.classes)).tolist()
    spread = ", ".join(f"{name} {count}" for name, count in zip(folders.classes, counts, strict=False))
    console.print(f"answers: {spread}", soft_wrap=True, markup=False)
