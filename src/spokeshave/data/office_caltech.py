"""Office-Caltech10: ten classes of objects in four domains (Gong et al.: Geodesic Flow Kernel, CVPR 2012).

Pictures of a shop (amazon), of a digital camera (dslr), of a web camera, and of Caltech-256. Each domain is a set of
its own. It has no test split: as is usual in adaptation, both splits hold all images. Read from one .npz file of JPEG
bytes, or from folders images/DOMAIN/CLASS.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from spokeshave.data.image_folder import read_tree
from spokeshave.data.packed_images import read_arrays, read_packed
from spokeshave.data.sources import DatasetName, Source
from spokeshave.data.splits import Split, Splits
from spokeshave.errors import DataError

CLASSES = (
    "backpack", "bike", "calculator", "headphones", "keyboard", "laptop", "monitor", "mouse", "mug", "projector",
)  # fmt: skip
DOMAINS = {
    DatasetName.AMAZON: "amazon", DatasetName.CALTECH10: "caltech10",
    DatasetName.DSLR: "dslr", DatasetName.WEBCAM: "webcam",
}  # fmt: skip
"""Data set -> name of its domain in the file and its folder."""
PIXELS = 64
_FILE = "office_caltech10_256.npz"


def read_office_caltech(folder: Path, domain: str, size: int = PIXELS) -> Splits:
    """Read one domain.

    Args:
        folder: with the file, or with images/DOMAIN/CLASS.
        domain: amazon, caltech10, dslr or webcam.
        size: height and width that images are scaled to, covering and cropped in the middle.

    Returns:
        All images, as training and as test split.

    Raises:
        DataError: where a file is damaged, or the classes are others.
    """
    path = folder / _FILE
    if not path.exists():
        split = read_tree(folder / "images" / domain, CLASSES, size, size, 3)
        return Splits(domain, split, split, CLASSES)
    arrays = read_arrays(path, ("jpeg", "offsets", "domain", "label", "domain_names", "class_names"))
    names = tuple(map(str, arrays["class_names"]))
    if names != CLASSES or domain not in arrays["domain_names"]:
        raise DataError(f"{path}: expected classes {', '.join(CLASSES)} and a domain {domain}, got {', '.join(names)}")
    chosen = arrays["domain"] == list(arrays["domain_names"]).index(domain)
    images = read_packed(path, chosen, arrays, size)
    labels = torch.from_numpy(arrays["label"][chosen].astype(np.int64))
    split = Split(torch.from_numpy(images), labels)
    return Splits(domain, split, split, CLASSES)


def _source(name: DatasetName, domain: str) -> Source:
    return Source(
        name=name,
        title=f"Office-Caltech10, {domain}",
        folders=("office-caltech10",),
        files=((_FILE, f"images/{domain}/backpack/frame_0001.jpg"),),
        read=partial(read_office_caltech, domain=domain),
        page="https://github.com/LeoGautheron/OfficeCaltechDomainAdaptation",
    )


AMAZON, CALTECH10, DSLR, WEBCAM = (_source(name, domain) for name, domain in DOMAINS.items())
