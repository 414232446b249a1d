"""The same one line in Lightning: the pull is attached where the optimizer is made.

Run it: python examples/lightning_loop.py    (needs pip install 'spokeshave[examples]')
"""

from typing import Any

import lightning
import torch
from plain_loop import accuracy, make_net
from rich import print
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import spokeshave as ss
from spokeshave.data import load, normalization_of

EPOCHS = 8


class Digits(lightning.LightningModule):
    """A classifier of digits that is pulled toward fewer filters."""

    def __init__(self) -> None:
        super().__init__()
        self.net = make_net()

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """Cross entropy of one batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def configure_optimizers(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """SGD with the pull, its rate falling by a cosine."""
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        ss.GroupLasso(self.net, filters=0.08).attach(optimizer)  # the one line
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)}


def main() -> tuple[nn.Module, nn.Module]:
    lightning.seed_everything(0, verbose=False)
    digits = load("digits")
    normalize = normalization_of(digits.train)
    loader = DataLoader(TensorDataset(normalize(digits.train.images), digits.train.labels), 64, shuffle=True)
    test = normalize(digits.test.images), digits.test.labels

    task = Digits()
    trainer = lightning.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, loader)

    small, report = ss.shrink(task.net.eval(), test[0][:1])
    print(report.table())
    print(ss.measure(small, test[0][:1], threads=(1,), repeats=10).table())
    print(f"test accuracy: {accuracy(task.net, *test):.2%} before shrinking, {accuracy(small, *test):.2%} after")
    return task.net, small


if __name__ == "__main__":
    main()
