"""Small classifiers with random weights, of the kinds that people publish, as PyTorch modules and ONNX files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

CLASSES = 5


class Vgg(nn.Module):
    """Behind its Flatten it takes one size alone."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(8 * 16 * 16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class Resnet(nn.Module):
    """Batch norm, max pooling with padding, a shortcut with a stride, and a last pooling as large as the map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 7, 2, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.block = nn.Sequential(
            nn.Conv2d(6, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, 1, 1, bias=False),
            nn.BatchNorm2d(8),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.Conv2d(6, 8, 1, 2, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        return torch.relu(self.block(x) + self.shortcut(x))

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.avg_pool2d(self.features(x), 4)
        return torch.softmax(self.head(pooled.reshape(-1, 8)), dim=1)


class Mobilenet(nn.Module):
    """Depthwise convolutions with ReLU6, hard swish, and a part that weighs channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
        self.depthwise = nn.Sequential(
            nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.Hardswish()
        )
        self.weigh = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Hardsigmoid())
        self.last = nn.Sequential(nn.Conv2d(8, 12, 1), nn.SiLU())
        self.head = nn.Sequential(nn.Dropout(), nn.Linear(12, CLASSES))

    def features(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.first(x))
        return self.last(x * self.weigh(x.mean(dim=(2, 3), keepdim=True)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean(dim=(2, 3)))


class Inception(nn.Module):
    """Branches that are joined, average pooling that leaves out the edges, and pooling that rounds up."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3), nn.LeakyReLU(0.1), nn.MaxPool2d(3, 2, ceil_mode=True))
        self.wide = nn.Sequential(nn.Conv2d(6, 4, 3, padding=2, dilation=2), nn.PReLU(4))
        self.thin = nn.Sequential(nn.Conv2d(6, 4, (1, 5), padding=(0, 2)), nn.ELU())
        self.pooled = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.head = nn.Linear(14, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return torch.cat([self.wide(x), self.thin(x), self.pooled(x)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class Nhwc(nn.Module):
    """As converters write TensorFlow's: [B, H, W, C] goes in, transposed first; the activation is on it too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, 2, 1)
        self.head = nn.Linear(8, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return torch.relu(self.second(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x.permute(0, 3, 1, 2)).mean(dim=(2, 3)))


KINDS: dict[str, Callable[[], nn.Module]] = {
    kind.__name__.lower(): kind for kind in (Vgg, Resnet, Mobilenet, Inception, Nhwc)
}
SIZES = {"vgg": 32, "resnet": 32, "mobilenet": 32, "inception": 33, "nhwc": 24}


def classifier(kind: str) -> nn.Module:
    """Weights, and statistics of batch norms, that are the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = KINDS[kind]().eval()
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(std=0.3)
                part.running_var.uniform_(0.5, 2)
                nn.init.uniform_(part.weight, 0.5, 1.5)
    return network


def write_classifier(path: Path, network: nn.Module, side: int, *, nhwc: bool = False, channels: int = 3) -> Path:
    """By PyTorch's exporter, for one size and any batch."""
    example = torch.zeros(2, side, side, channels) if nhwc else torch.zeros(2, channels, side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (example,), str(path), dynamo=False, input_names=["input"], output_names=["output"],
            dynamic_axes={"input": {0: "n"}, "output": {0: "n"}}, opset_version=17,
        )  # fmt: skip
    return path
