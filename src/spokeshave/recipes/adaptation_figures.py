"""Figures and tables of recipe `adaptation`: features of both domains in a plane, confusions, costs of networks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spokeshave.measure import measure
from spokeshave.recipes.adaptation_arms import Seen
from spokeshave.report.arms_record import Chart, Curve
from spokeshave.report.heat_table import HeatTable

_FEW = 200
"""Images of each domain in a picture of features."""


def feature_chart(title: str, source: Seen, target: Seen, seed: int) -> Chart:
    """Features of both domains in a plane, by t-SNE (van der Maaten, Hinton, JMLR 2008); a colour for each domain.

    Args:
        title: of the figure.
        source: features of one domain.
        target: of the other.
        seed: of the embedding.
    """
    from sklearn.manifold import TSNE

    parts = [one.features[:_FEW] for one in (source, target)]
    rows = torch.cat(parts).double().numpy()
    rows = (rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-9)
    nearby = max(2, min(30, (len(rows) - 1) // 3))
    places = TSNE(2, perplexity=nearby, init="pca", random_state=seed).fit_transform(rows)
    split = len(parts[0])
    curves = [
        Curve(name, [float(x) for x in some[:, 0]], [float(y) for y in some[:, 1]], points=True)
        for name, some in (("source", places[:split]), ("target", places[split:]))
    ]
    return Chart(title, "first axis of t-SNE", "second axis", curves)


def confusion_table(title: str, seen: Seen, classes: Sequence[str]) -> HeatTable:
    """Which class target images are taken for: shares of each true class.

    Args:
        title: of the table.
        seen: answers and labels.
        classes: names of the labels.
    """
    counts = torch.zeros(len(classes), len(classes))
    answers: Tensor = seen.logits.argmax(1)
    counts.index_put_((seen.labels, answers), torch.ones(len(answers)), accumulate=True)
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    names = list(classes)
    return HeatTable(title, "true class", names, "answer", names, shares.tolist())


def network_rows(networks: dict[str, tuple[nn.Module, nn.Module]], example: Tensor) -> list[dict[str, Any]]:
    """Parameters, FLOPs and speed of networks, for one image; what weights that are zero would cost is left out.

    Args:
        networks: by name, the network as it is run, which is timed, and the same in layers of torch, which are counted:
            so batch normalization, which compiled networks fold into weights, is in all counts.
        example: one image.
    """
    found = []
    for name, (network, layers) in networks.items():
        cost, counted = measure(network, example), measure(layers, example, latency=False)
        flops, zeros, weights = 0.0, 0, dict(layers.named_parameters())
        for layer in counted.layers:
            weight = weights.get(f"{layer.name}.weight")
            if weight is None or weight.dim() < 2:
                flops += layer.flops
                continue
            alive = int(weight.count_nonzero())
            zeros += weight.numel() - alive
            flops += layer.flops * alive / weight.numel()
        times = {f"ms_batch_{one.batch_size}_threads_{one.threads}": 1e3 * one.median_s for one in cost.latencies}
        found.append({"network": name, "parameters": counted.parameters - zeros, "flops": round(flops), **times})
    return found
