"""A classifier and what adapts it beside it: the network that is trained on two domains.

Its answer is that of the classifier alone: what is saved, shrunk or deployed afterwards is the classifier.
"""

from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spokeshave.adaptation.domain_classifier import DomainClassifier
from spokeshave.adaptation.feature_layer import features_of, last_layer, scores_of
from spokeshave.adaptation.gradient_reversal import reverse_gradient
from spokeshave.adaptation.residual_classifier import ResidualClassifier


class Statistics(Enum):
    """Which images batch normalization takes mean and deviation from, in training."""

    EACH = "each"
    """Those of one domain: each passes on its own."""
    BOTH = "both"
    """Those of both domains together."""


@dataclass(frozen=True, eq=False)
class TwoDomains:
    """What one pass over a batch of each domain gives.

    Attributes:
        source_features: what the last layer was fed.
        target_features: likewise.
        source_scores: logits that source labels teach.
        source_answers: logits of the classifier itself; other than `source_scores` with a residual classifier.
        target_answers: logits of the classifier.
        source_domain: scores of the domain classifier, above 0 where it takes a row for the source's.
        target_domain: likewise.
    """

    source_features: Float[Tensor, "n features"]
    target_features: Float[Tensor, "m features"]
    source_scores: Float[Tensor, "n classes"]
    source_answers: Float[Tensor, "n classes"]
    target_answers: Float[Tensor, "m classes"]
    source_domain: Float[Tensor, " n"]
    target_domain: Float[Tensor, " m"]


class AdaptingNetwork(nn.Module):
    """`network`, `domain_classifier` and, where asked for, `residual`.

    Args:
        network: gives logits.
        example: a batch that it takes.
        layer: the one whose input are the features; found where None.
        residual: source scores are target scores with a learned correction.
        statistics: of batch normalization.
        hidden: neurons of the domain classifier's hidden layers.

    Raises:
        UnsupportedLayer: where the layer is not found.
        InvalidArgument: where the network does not give logits, or has no such layer.
    """

    def __init__(
        self,
        network: nn.Module,
        example: Float[Tensor, "b *image"],
        layer: str | None = None,
        residual: bool = False,
        statistics: Statistics = Statistics.EACH,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        self.network, self.statistics = network, statistics
        self.layer = last_layer(network, example) if layer is None else layer
        with features_of(network, self.layer) as found:
            scores = scores_of(network, example)
        self.classes = scores.shape[1]
        self.domain_classifier = DomainClassifier(found[0].shape[1], hidden).to(example.device)
        self.residual = ResidualClassifier(scores.shape[1]).to(example.device) if residual else nn.Identity()

    def forward(
        self,
        images: Float[Tensor, "n *image"],
        target: Float[Tensor, "m *image"] | None = None,
        scale: float = 1.0,
    ) -> Float[Tensor, "n classes"] | TwoDomains:
        """Class scores (logits) of images; with images of the target domain, everything that adapting needs.

        Args:
            images: of the source, or of any domain where they come alone.
            target: of the target domain.
            scale: of the gradient that comes back reversed from the domain classifier.
        """
        if target is None:
            return self.network(images)
        with features_of(self.network, self.layer) as found:
            if self.statistics is Statistics.EACH:
                answers = self.network(images), self.network(target)
                features = found[0], found[1]
            else:
                sizes = [len(images), len(target)]
                answers = self.network(torch.cat([images, target])).split(sizes)
                features = found[0].split(sizes)
        domains = [self.domain_classifier(reverse_gradient(one, scale)) for one in features]
        return TwoDomains(
            features[0], features[1], self.residual(answers[0]), answers[0], answers[1], domains[0], domains[1]
        )
