"""The cards of recipe `adaptation`: how the weights that a run leaves are loaded and fed."""

from pathlib import Path

from spokeshave.adaptation.adapt import Feeding
from spokeshave.data.normalization import Normalization
from spokeshave.files import atomic_write
from spokeshave.recipes.adaptation_forms import SAME_LAYERS
from spokeshave.recipes.adaptation_rows import RowPlan
from spokeshave.report.arms_record import ArmsRecord
from spokeshave.report.model_card import model_card

CARD = "README.md"


def write_cards(record: ArmsRecord, run_dir: Path, plan: RowPlan, feeding: Feeding, classes: tuple[str, ...]) -> None:
    """Write a card beside the weights of every seed.

    Args:
        record: of the run.
        run_dir: of the run.
        plan: of the row.
        feeding: of images.
        classes: names of the outputs.

    Raises:
        FileError: where a card cannot be written.
    """
    size, network = plan.size, plan.network.value
    suffix = ".safetensors" if plan.form in SAME_LAYERS else ".pt2"
    file = record.headline + suffix
    if plan.form in SAME_LAYERS:
        loading = _LOADING.format(network=network, classes=len(classes), size=size, file=file)
    else:
        loading = _PROGRAM.format(file=file)
    facts = {
        "Network": f"`{network}`, {plan.form.value}, {record.layers['Network'][-1]['parameters']:,} parameters",
        "Input": f"colour images, {size} x {size} pixels, {_normalized(feeding)}",
        "Output": f"logits of {', '.join(classes)}",
        "Before": "weights drawn at random" if plan.pretraining is None else "pretrained on the Tiny ImageNet at hand",
        "Training": "its last stage alone" if plan.frozen else "all layers",
    }
    limits = [
        "Small networks, trained briefly on small images: for comparing methods, not for use on people or in products.",
        f"Good for images like those of {record.data}; on others the error is unknown.",
        "The last step's weights, never those of the best step on the target.",
    ]
    card = model_card(record, loading, facts, limits, ("image-classification", "domain-adaptation"), suffix)
    for seed in record.seeds:
        atomic_write(run_dir / f"seed-{seed}" / "weights" / CARD, card)


_LOADING = """
from spokeshave.export import load_safetensors
from spokeshave.recipes.adaptation_rows import NetworkName

network = NetworkName("{network}").make({classes}, {size}).eval()
load_safetensors(network, "{file}")
"""
_PROGRAM = """
import torch

network = torch.export.load("{file}").module()  # its shapes follow from the compression
"""


def _normalized(feeding: Feeding) -> str:
    normalize = feeding.normalize
    if not isinstance(normalize, Normalization):
        return "each less its mean, over its standard deviation"
    mean, deviation = ([round(float(one), 4) for one in part.flatten()] for part in (normalize.mean, normalize.std))
    return f"(x / 255 - mean) / deviation with mean {mean} and deviation {deviation} a channel"
