"""A residual network of bottlenecks, 24.6 million parameters, on images of 3 x 64 x 64.

As ResNet-50 (He et al. 2015, "Deep Residual Learning for Image Recognition", table 1), but for a stem that leaves small
images their size, ten classes, and one block more in the third stage.
"""

from torch import nn

BLOCKS, WIDTHS, EXPANSION = (3, 4, 7, 3), (64, 128, 256, 512), 4


def conv(inputs, outputs, size, stride=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        outputs = EXPANSION * width
        self.inner = nn.Sequential(
            conv(inputs, width, 1), nn.ReLU(), conv(width, width, 3, stride), nn.ReLU(), conv(width, outputs, 1)
        )
        self.skip = nn.Identity() if (inputs, stride) == (outputs, 1) else conv(inputs, outputs, 1, stride)

    def forward(self, x):
        return nn.functional.relu(self.inner(x) + self.skip(x))


class Mean(nn.Module):
    """Over the image. AdaptiveAvgPool2d has no deterministic gradient on a GPU."""

    def forward(self, x):
        return x.mean((2, 3))


def build(data_spec):
    layers, inputs = [conv(3, 64, 3), nn.ReLU()], 64
    for stage, (blocks, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True)):
        for block in range(blocks):
            layers.append(Bottleneck(inputs, width, 2 if stage and not block else 1))
            inputs = EXPANSION * width
    return nn.Sequential(*layers, Mean(), nn.Linear(inputs, data_spec.classes))
