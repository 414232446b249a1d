"""The same one line with Hugging Face Accelerate: the pull is attached after `prepare`, to the optimizer it gave.

Run it: python examples/accelerate_loop.py    (needs pip install 'spokeshave[examples]')
"""

import torch
from accelerate import Accelerator
from plain_loop import accuracy, make_net
from rich import print
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import spokeshave as ss
from spokeshave.data import load, normalization_of

EPOCHS = 8


def main() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    digits = load("digits")
    normalize = normalization_of(digits.train)
    loader = DataLoader(TensorDataset(normalize(digits.train.images), digits.train.labels), 64, shuffle=True)
    test = normalize(digits.test.images), digits.test.labels

    accelerator = Accelerator(cpu=True)
    net = make_net()
    net, optimizer, loader = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9), loader)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer.optimizer, EPOCHS)
    ss.GroupLasso(net, filters=0.08).attach(optimizer.optimizer)  # the one line: torch's optimizer, inside Accelerate's

    for _ in range(EPOCHS):
        for images, labels in loader:
            optimizer.zero_grad()
            accelerator.backward(nn.functional.cross_entropy(net(images), labels))
            optimizer.step()
        schedule.step()

    net = accelerator.unwrap_model(net)
    small, report = ss.shrink(net.eval(), test[0][:1])
    print(report.table())
    print(ss.measure(small, test[0][:1], threads=(1,), repeats=10).table())
    print(f"test accuracy: {accuracy(net, *test):.2%} before shrinking, {accuracy(small, *test):.2%} after")
    return net, small


if __name__ == "__main__":
    main()
