"""A plain PyTorch loop with one more line: group lasso empties filters, then the network is shrunk and measured.

Run it: python examples/plain_loop.py    (the digits that scikit-learn ships; seconds on a CPU)
"""

import torch
from rich import print
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import spokeshave as ss
from spokeshave.data import load, normalization_of


def make_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 5), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 4 * 4, 10),
    )  # fmt: skip


def train(net: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    net.train()
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()


def accuracy(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.inference_mode():
        return float((net.eval()(images).argmax(1) == labels).float().mean())


def main() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    digits = load("digits")
    normalize = normalization_of(digits.train)
    loader = DataLoader(TensorDataset(normalize(digits.train.images), digits.train.labels), 64, shuffle=True)
    test = normalize(digits.test.images), digits.test.labels

    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    pull = ss.GroupLasso(net, filters=0.08).attach(optimizer)  # the one line
    train(net, loader, optimizer, epochs=6)

    pull.remove()  # fine-tune what is left, with the zero groups held at zero
    ss.Freeze(net).attach(optimizer)
    optimizer.param_groups[0]["lr"] = 0.01
    train(net, loader, optimizer, epochs=3)

    small, report = ss.shrink(net.eval(), test[0][:1])
    print(report.table())
    print(ss.compare(net, small, test[0][:1], threads=(1,), repeats=10).table())
    print(f"test accuracy: {accuracy(net, *test):.2%} before shrinking, {accuracy(small, *test):.2%} after")
    return net, small


if __name__ == "__main__":
    main()
