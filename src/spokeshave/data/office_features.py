"""Fixed features of Office-Caltech10: SURF histograms (Gong et al., CVPR 2012) and GoogLeNet's last features.

MATLAB files with arrays `fts`, an image a row, and `labels` from 1; one file a domain, in features/surf and
features/GoogleNet1024.
"""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from spokeshave.data.office_caltech import CLASSES
from spokeshave.errors import DataError


class FeatureKind(Enum):
    """Which features, by the name of their folder."""

    SURF = "surf"
    """Histograms of 800 visual words."""
    GOOGLENET = "GoogleNet1024"
    """1024 features of a GoogLeNet trained on ImageNet."""


@dataclass(frozen=True, eq=False)
class Features:
    """Features of one domain.

    Attributes:
        rows: one an image.
        labels: 0..9.
    """

    rows: Float[Tensor, "n features"]
    labels: Int64[Tensor, " n"]


def read_office_features(folder: Path, kind: FeatureKind, domain: str) -> Features:
    """Read the features of one domain, as they are.

    Args:
        folder: office-caltech10, which holds features/.
        kind: which features.
        domain: amazon, caltech10, dslr or webcam.

    Raises:
        DataError: where the file is missing, damaged or of another form.
    """
    from scipy.io import loadmat  # half a second that `import spokeshave` should not cost

    path = folder / "features" / kind.value / f"{domain}.mat"
    if not path.is_file():
        there = sorted(one.stem for one in path.parent.glob("*.mat"))
        raise DataError(f"{path} is missing; {kind.value} features are here for: {', '.join(there) or 'no domain'}")
    try:
        content = loadmat(path, variable_names=["fts", "labels"])
        rows, labels = np.asarray(content["fts"], np.float32), np.asarray(content["labels"]).ravel().astype(np.int64)
    except Exception as error:  # loadmat raises what the bytes happen to lead to
        raise DataError(f"{path} holds no arrays fts and labels: {error}; copy it again") from error
    if rows.ndim != 2 or len(rows) != len(labels) or not len(labels) or not np.isfinite(rows).all():
        raise DataError(f"{path}: expected finite rows and as many labels, got {rows.shape} and {labels.shape}")
    if labels.min() < 1 or labels.max() > len(CLASSES):
        raise DataError(f"{path}: expected labels 1..{len(CLASSES)}, got {labels.min()}..{labels.max()}")
    return Features(torch.from_numpy(rows), torch.from_numpy(labels - 1))


def standardized(features: Features, histogram: bool) -> Features:
    """Each column to mean 0 and deviation 1 over the domain, as the protocol of Gong et al. does.

    Args:
        features: of one domain.
        histogram: first give every row a sum of 1, so that images of other sizes compare.

    Example:
        >>> two = Features(torch.tensor([[1.0, 3.0], [3.0, 1.0]]), torch.tensor([0, 1]))
        >>> standardized(two, True).rows.tolist()
        [[-1.0, 1.0], [1.0, -1.0]]
    """
    rows = features.rows.double()
    if histogram:
        rows = rows / rows.sum(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
    deviation, mean = torch.std_mean(rows, 0, correction=0, keepdim=True)
    deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))  # a column that is always the same
    return Features(((rows - mean) / deviation).float(), features.labels)
