"""Batches that are a pure function of (seed, epoch, index), so that a resumed run sees the same bytes.

Nothing is drawn from a global random state and nothing is remembered between batches: killing a run and asking for
batch 17 of epoch 3 again gives what the first run saw, on every device and in every process.
"""

import hashlib
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from spokeshave.data.augmentation import Augmentation
from spokeshave.data.normalization import Normalization
from spokeshave.data.splits import Split
from spokeshave.errors import InvalidArgument
from spokeshave.processes import usable_device
from spokeshave.tensor_digest import digest


class Batches:
    """A split, cut into normalised batches.

    Args:
        split: the images; moved to `device` once, as uint8.
        batch_size: images a batch and process, 1 or more. The last batch is smaller unless `drop_last`.
        seed: of the order and the augmentation.
        normalize: from grey levels to what the network is fed: a `Normalization` or the like; None scales to 0..1, and
            leaves what is float already, such as feature maps, as it is.
        augment: None leaves the images as they are; of its parts, evaluation sees the size of the crop only.
        device: where the batches come out.
        drop_last: leave out an incomplete last batch.
        channels_last: give the memory format that is faster for convolutions on CPU and GPU.
        shuffle: a new order each epoch; False keeps the order of the split.
        rank: of this process among `world_size`, 0..world_size-1.
        world_size: processes that share an epoch. Each sees a disjoint share of equal size, so up to
            world_size-1 images are left out of an epoch (others each epoch, when shuffled).

    Raises:
        InvalidArgument: where a number is out of its range or no batch would come out.

    Example:
        >>> split = Split(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.arange(10))
        >>> batches = Batches(split, 4, seed=0)
        >>> len(batches), sorted(int(y) for i in range(3) for y in batches.batch(epoch=5, index=i)[1])
        (3, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int = 0,
        normalize: Callable[[Tensor], Tensor] | None = None,
        augment: Augmentation | None = None,
        device: torch.device | str = "cpu",
        drop_last: bool = False,
        channels_last: bool = False,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise InvalidArgument(f"batch_size must be 1 or more, got {batch_size}")
        if not 0 <= rank < world_size:
            raise InvalidArgument(f"rank must be 0..world_size-1, got rank {rank} of world_size {world_size}")
        self.split = split
        self.batch_size = batch_size
        self.seed = seed
        grey = split.images.dtype == torch.uint8
        self.normalize = normalize or (Normalization.scale_only(split.images.shape[1]) if grey else _as_it_is)
        self.augment = augment
        self.device = usable_device(str(device))
        self.drop_last = drop_last
        self.channels_last = channels_last
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self._images = split.images.to(self.device)
        self._labels = split.labels.to(self.device)
        self._order: tuple[int, Tensor] | None = None
        share = len(split) // world_size
        self._count = share // batch_size if drop_last else -(-share // batch_size)
        if self._count < 1:
            raise InvalidArgument(
                f"{len(split)} images over {world_size} process(es) give no batch of {batch_size}"
                f"{' with drop_last' if drop_last else ''}; use a smaller batch_size"
            )

    def __len__(self) -> int:
        """Batches in an epoch, for this process."""
        return self._count

    def digest(self) -> str:
        """SHA-256 of the split, by which a training that is resumed on other images is told."""
        return digest({"images": self.split.images, "labels": self.split.labels})

    def order(self, epoch: int) -> Int64[Tensor, " share"]:
        """Give the positions in the split that this process visits in an epoch, in order."""
        if self._order is None or self._order[0] != epoch:
            total = len(self.split)
            if self.shuffle:
                whole = torch.randperm(total, generator=_generator("order", self.seed, epoch))
            else:
                whole = torch.arange(total)
            # Striding by process makes one batch of all processes equal a batch of one process that is as large.
            share = total // self.world_size
            self._order = epoch, whole[self.rank :: self.world_size][:share]
        return self._order[1]

    def batch(self, epoch: int, index: int) -> tuple[Float[Tensor, "b c h w"], Int64[Tensor, " b"]]:
        """Give one batch: a pure function of (seed, epoch, index).

        Args:
            epoch: 0 or more.
            index: 0..len(self)-1.

        Returns:
            Normalised images and their labels, on the device.

        Raises:
            InvalidArgument: where the index is out of its range.
        """
        if not 0 <= index < self._count:
            raise InvalidArgument(f"index must be 0..{self._count - 1}, got {index}")
        chosen = self.order(epoch)[index * self.batch_size : (index + 1) * self.batch_size].to(self.device)
        images = self._images[chosen]
        if self.augment is not None:
            images = self.augment(images, _generator("augment", self.seed, epoch, index, self.rank))
        return self._finish(images), self._labels[chosen]

    def epoch(self, epoch: int) -> Iterator[tuple[Float[Tensor, "b c h w"], Int64[Tensor, " b"]]]:
        """Go through the batches of one epoch, shuffled and augmented as set."""
        for index in range(self._count):
            yield self.batch(epoch, index)

    def __iter__(self) -> Iterator[tuple[Float[Tensor, "b c h w"], Int64[Tensor, " b"]]]:
        """Go once through the images for evaluation: in the order of the split, never augmented, none left out.

        Use `epoch` for training. With several processes each sees its own share, and the shares cover the split.
        """
        for start in range(self.rank, len(self.split), self.batch_size * self.world_size):
            chosen = slice(start, start + self.batch_size * self.world_size, self.world_size)
            yield self._unaugmented(chosen)

    def evenly(self) -> Iterator[tuple[Float[Tensor, "b c h w"], Int64[Tensor, " b"]]]:
        """Go once through the images for statistics over batches: in a random order, in batches of about one size.

        The order follows from the seed and the number of images. Nothing is augmented or left out; with several
        processes each sees its own share. Files are often sorted by class, and a batch of one class, or a last one of
        few images, is like no other.
        """
        order = torch.randperm(len(self.split), generator=_generator("evenly", self.seed, len(self.split)))
        own = order[self.rank :: self.world_size].to(self.device)
        for chosen in own.tensor_split(-(-len(own) // self.batch_size)):
            yield self._unaugmented(chosen)

    def _unaugmented(self, chosen: slice | Tensor) -> tuple[Tensor, Tensor]:
        images = self._images[chosen]
        return self._finish(images if self.augment is None else self.augment.centre(images)), self._labels[chosen]

    def _finish(self, images: Tensor) -> Tensor:
        normalised = self.normalize(images)
        return normalised.contiguous(memory_format=torch.channels_last) if self.channels_last else normalised


def _as_it_is(maps: Tensor) -> Tensor:
    return maps


def _generator(purpose: str, *numbers: int) -> torch.Generator:
    """Seed a CPU generator by a hash, so that neighbouring seeds, epochs and batches are unrelated."""
    digest = hashlib.blake2b("/".join([purpose, *map(str, numbers)]).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
