"""A fresh probe: how well a new classifier tells source features from target features, whatever training has done.

Ben-David, Blitzer, Crammer, Pereira: Analysis of Representations for Domain Adaptation, NIPS 2006: the proxy of the
A-distance, 2 (1 - 2 error). The classifier of an adversarial training may be at a half because it has learned nothing;
this one was not part of it.
Departs from the paper: a logistic regression on standardized features.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from spokeshave.errors import InvalidArgument


@dataclass(frozen=True)
class Probe:
    """What the probe found.

    Attributes:
        accuracy: mean share of right answers of both domains on features it was not trained on, 0..1; about a half
            where domains look alike to it.
        distance: proxy of the A-distance, -2..2; 0 where they look alike.
    """

    accuracy: float

    @property
    def distance(self) -> float:
        """2 (1 - 2 error), from the accuracy."""
        return 2 * (2 * self.accuracy - 1)


def probe_domains(source: Float[Tensor, "n features"], target: Float[Tensor, "m features"], seed: int = 0) -> Probe:
    """Train on half of the features of each domain, ask about the other half.

    Args:
        source: features of one domain, at least four rows.
        target: features of the other, likewise.
        seed: draws the halves.

    Raises:
        InvalidArgument: for too few rows, or features that are not finite.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> rows = torch.randn(200, 3, generator=generator)
        >>> probe_domains(rows[:100], rows[100:] + 20).accuracy
        1.0
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if min(len(source), len(target)) < 4 or not bool(torch.isfinite(source).all() and torch.isfinite(target).all()):
        raise InvalidArgument(
            f"features: a probe takes at least 4 finite rows of each domain, got {len(source)} and {len(target)}"
        )
    halves = []
    for features in (source, target):
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
        rows = features.detach().cpu().double()[order].numpy()
        halves.append((rows[: len(rows) // 2], rows[len(rows) // 2 :]))
    import numpy as np

    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    first, second = halves[0][0], halves[1][0]
    model.fit(np.concatenate([first, second]), np.r_[np.ones(len(first)), np.zeros(len(second))])
    right = [float((model.predict(rows[1]) == label).mean()) for rows, label in zip(halves, (1, 0), strict=True)]
    return Probe(sum(right) / 2)
