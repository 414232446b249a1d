"""Small networks of many architectures, with random biases and batch statistics, for the tests of rewrites.

Each entry of `ZOO` builds (network, example). The networks are written in different styles on purpose: modules,
functions and methods, in-place operations, hard-coded views, sizes read from tensors.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 10, 5)
        self.ip1 = nn.Linear(160, 20)
        self.ip2 = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        x = x.view(-1, 160)
        return self.ip2(F.dropout(F.relu(self.ip1(x)), 0.5, self.training))


class WithinChannelNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + 5e-5 * F.avg_pool2d(x.pow(2), 3, stride=1, padding=1)) ** -0.75


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5, padding=2)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm = WithinChannelNorm()
        self.conv2 = nn.Conv2d(8, 8, 5, padding=2)
        self.conv3 = nn.Conv2d(8, 12, 5, padding=2)
        self.pool2 = nn.AvgPool2d(3, 2, ceil_mode=True)
        self.ip1 = nn.Linear(12 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(F.relu(self.pool1(self.conv1(x)), inplace=True))
        x = self.norm(self.pool2(torch.relu(self.conv2(x))))
        x = self.pool2(self.conv3(x).relu_())
        return self.ip1(x.view(x.size(0), -1))


class ResidualBlock(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Conv2d(width_in, width, 1, stride, bias=False) if stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1)
        self.bn1 = nn.BatchNorm2d(4)
        blocks = [ResidualBlock(4, 4, 1), ResidualBlock(4, 4, 1), ResidualBlock(4, 8, 2), ResidualBlock(8, 8, 1)]
        self.layers = nn.Sequential(*blocks)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(F.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class PreActivationResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(4))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for place in (0, 2):
            out = self.convs[place](F.relu_(self.norms[place](x)))
            x = x.add(self.convs[place + 1](self.norms[place + 1](out).relu()))
        return self.head(x.mean((2, 3)))


class CaffeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.LocalResponseNorm(5),
            nn.Conv2d(8, 12, 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(12, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 12, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.fc6 = nn.Linear(12 * 2 * 3, 20)
        self.drop = nn.Dropout()
        self.fc7 = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.fc7(self.drop(torch.relu(self.fc6(x.reshape(x.shape[0], -1)))))


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * n) for n in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * n, 4, 3, padding=1, bias=n == 1) for n in range(3))
        self.transition = nn.Conv2d(18, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.classifier = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)), inplace=True)))
        x = F.avg_pool2d(self.transition(torch.cat(features, dim=1)), 2)
        return self.classifier(F.relu(self.norm(x)).mean([2, 3]))


class InvertedResidual(nn.Module):
    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        hidden = width_in * 3
        self.shortcut = stride == 1 and width_in == width
        self.conv = nn.Sequential(
            nn.Conv2d(width_in, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1, bias=False),
            nn.BatchNorm2d(4),
            nn.Hardswish(),
            InvertedResidual(4, 4, 1),
            InvertedResidual(4, 6, 2),
            InvertedResidual(6, 6, 1),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(6, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(x.flatten(1))


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.b1 = nn.Conv2d(6, 4, 1)
        self.b2a, self.b2b = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 5, (1, 3), padding=(0, 1))
        self.b3a, self.b3b = nn.Conv2d(6, 3, 1), nn.Conv2d(3, 4, 5, padding="same")
        self.b4 = nn.Conv2d(6, 3, 1)
        self.bn = nn.BatchNorm2d(16)
        self.head = nn.Conv2d(16, 7, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.stem(x))
        branches = [
            self.b1(x),
            self.b2b(F.elu(self.b2a(x))),
            self.b3b(torch.tanh(self.b3a(x))),
            self.b4(F.max_pool2d(x, 3, stride=1, padding=1)),
        ]
        x = F.relu(self.bn(torch.cat(branches, 1)))
        return self.head(x).mean(dim=(-2, -1))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(True))
        self.down2 = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.InstanceNorm2d(6, affine=True), nn.PReLU(6))
        self.bottom = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.SiLU())
        self.up2 = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.fuse2 = nn.Conv2d(12, 6, 3, padding=1, padding_mode="reflect")
        self.up1 = nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1)
        self.fuse1 = nn.Conv2d(8, 4, 3, padding=1)
        self.out = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.bottom(F.avg_pool2d(b, 2))
        up = self.up2(c)
        up = F.pad(up, [0, b.size(3) - up.size(3), 0, b.size(2) - up.size(2)])
        up = F.relu(self.fuse2(torch.cat([b, up], dim=1)))
        up = F.interpolate(self.up1(up), size=a.shape[2:], mode="bilinear", align_corners=False)
        up = F.gelu(self.fuse1(torch.cat((a, up), 1)))
        return self.out(torch.cat([up, x], 1))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))


class ViT(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 7, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.attention = nn.ModuleList([Attention(width, 2), nn.MultiheadAttention(width, 2, batch_first=True)])
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Dropout(0.1), nn.Linear(16, width)) for _ in range(2)
        )
        self.scale = nn.Parameter(torch.ones(width))
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        x = x + self.attention[0](self.norms[0](x))
        x = x + self.scale * self.mlps[0](x)
        normed = self.norms[1](x)
        x = x + self.attention[1](normed, normed, normed, need_weights=False)[0]
        x = x + self.mlps[1](x)
        return self.head(self.norms[2](x)[:, 0])


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(nn.Linear(8, 4), nn.ReLU(inplace=True), nn.Linear(4, 8), nn.Sigmoid())
        self.scale = nn.Parameter(torch.rand(8, 1, 1) + 0.5)
        self.reduce, self.expand = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.out = nn.Conv2d(8, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        b, c, _, _ = x.size()
        gate = self.fc(self.pool(x).view(b, c)).view(b, c, 1, 1)
        x = x * gate.expand_as(x) * self.scale
        second = self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))).sigmoid()
        return self.out(second * x).amax((2, 3))


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 16, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(16, 32, 3, groups=16)
        self.c = nn.Conv2d(32, 8, 3, padding=2, dilation=2, groups=2)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)
        self.d = nn.Conv2d(6, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.b(F.softplus(self.a(x))))
        x = self.c(self.depthwise(x).clamp(min=-0.1))
        return self.d(self.up(x)).sum(dim=(2, 3))


class ShuffleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.reduce = nn.Conv2d(12, 12, 1, groups=3)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.bn = nn.BatchNorm2d(12)
        self.expand = nn.Conv2d(12, 12, 1, groups=3)
        self.right = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(12, 4)

    @staticmethod
    def shuffle(x: Tensor, groups: int) -> Tensor:
        b, c, h, w = x.shape
        return x.view(b, groups, c // groups, h, w).transpose(1, 2).contiguous().view(b, c, h, w)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        out = self.shuffle(F.relu(self.reduce(x)), 3)
        x = x + self.expand(self.bn(self.depthwise(out)))
        left, right = x.chunk(2, dim=1)
        x = torch.cat([left, F.relu(self.right(right))], 1)
        x = self.shuffle(x, 2)
        return self.fc(x[:, :, 1:].mean(3).mean(2))


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(36, 20), nn.Linear(20, 12), nn.Linear(12, 5)
        self.norm = nn.BatchNorm1d(20)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return F.log_softmax(self.fc3(F.selu(self.fc2(self.norm(self.fc1(x)).relu()))), dim=1)


class SharedModules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.left, self.right = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.right.weight = self.left.weight
        self.middle = nn.Conv2d(6, 8, 3)
        self.out = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x = self.twice(self.relu(self.twice(x)))
        return self.out(self.relu(self.middle(self.left(x) - 2 * self.right(x).abs()))).flatten(2)


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 5 * 3 * 4)
        self.unflatten = nn.Unflatten(1, (5, 3, 4))
        self.up = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(5, 8, 3, padding=1), nn.ReLU())
        self.up1 = nn.ConvTranspose2d(8, 6, 4, 2, 1)
        self.refine = nn.Conv2d(6, 3, 3, padding=1, padding_mode="replicate")

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.up1(self.up(self.unflatten(F.relu(self.fc(x)))))
        return torch.tanh(self.refine(F.relu(x))), {"mean": x.mean()}


class Conv1dNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 8, 5, padding=2), nn.Conv1d(8, 6, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm1d(8)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.b(F.relu(self.bn(self.a(x))))).permute(0, 2, 1)).mean(1)


Build = Callable[[], tuple[nn.Module, Tensor]]
ZOO: dict[str, Build] = {
    "lenet": lambda: (LeNet(), torch.randn(1, 1, 28, 28)),
    "convnet": lambda: (ConvNet(), torch.randn(2, 3, 16, 16)),
    "resnet": lambda: (ResNet(), torch.randn(1, 3, 9, 12)),
    "preactivation": lambda: (PreActivationResNet(), torch.randn(1, 3, 7, 6)),
    "caffenet": lambda: (CaffeNet(), torch.randn(1, 3, 27, 31)),
    "densenet": lambda: (DenseNet(), torch.randn(1, 3, 8, 10)),
    "mobilenet": lambda: (MobileNet(), torch.randn(1, 3, 16, 12)),
    "inception": lambda: (Inception(), torch.randn(1, 3, 7, 9)),
    "unet": lambda: (UNet(), torch.randn(1, 2, 10, 14)),
    "vit": lambda: (ViT(), torch.randn(1, 3, 8, 12)),
    "squeeze-excite": lambda: (SqueezeExcite(), torch.randn(1, 3, 6, 8)),
    "grouped": lambda: (Grouped(), torch.randn(1, 4, 8, 7)),
    "shufflenet": lambda: (ShuffleNet(), torch.randn(1, 3, 6, 5)),
    "mlp": lambda: (MLP(), torch.randn(1, 1, 6, 6)),
    "shared": lambda: (SharedModules(), torch.randn(1, 3, 6, 7)),
    "generator": lambda: (Generator(), torch.randn(1, 6)),
    "conv1d": lambda: (Conv1dNet(), torch.randn(1, 3, 16)),
}


def build(name: str, seed: int) -> tuple[nn.Module, Tensor]:
    """A network of the zoo with random biases, normalisation parameters and statistics, and its example."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network, example = ZOO[name]()
        for module in network.modules():
            for key, parameter in module.named_parameters(recurse=False):
                if parameter.ndim == 1:
                    nn.init.normal_(parameter, std=0.5)
                elif key in ("cls", "position"):
                    nn.init.normal_(parameter)
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
        return network.eval(), example


def mixing_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and linear layers by name."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
    return {name: module for name, module in network.named_modules() if type(module) in kinds}


def zero_at_random(network: nn.Module, seed: int, share: float = 0.5) -> list[str]:
    """Zero random filters, channels, filter shapes or whole layers of random layers; returns what was done."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> Tensor:
        return torch.rand(count, generator=generator) < share

    done = []
    with torch.no_grad():
        for name, module in mixing_layers(network).items():
            weight = module.weight
            assert isinstance(weight, Tensor)
            action = ("filters", "channels", "shapes", "nothing", "both", "filters with bias", "all")[
                int(torch.randint(7 if weight.numel() < 20_000 else 6, (1,), generator=generator))
            ]
            if action in ("filters", "both", "filters with bias"):
                weight[draw(weight.shape[0])] = 0
            if action in ("channels", "both"):
                weight[:, draw(weight.shape[1])] = 0
            if action == "shapes":
                weight.view(weight.shape[0], -1)[:, draw(weight[0].numel())] = 0
            if action == "filters with bias" and module.bias is not None:
                module.bias[weight.flatten(1).eq(0).all(1)[: len(module.bias)].nonzero().flatten()] = 0  # type: ignore[index]
            if action == "all" and float(torch.rand(1, generator=generator)) < 0.3:
                weight.zero_()
            done.append(f"{name}: {action}")
    return done
