"""Two small convolutional networks for training from scratch."""

from __future__ import annotations

from torch import Tensor, nn


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


class PlainCNN(nn.Module):
    """Six Conv-BatchNorm-ReLU layers in three stages, global average pooling, one linear layer.

    Input (B, C, H, W) float32, H and W of 8 px or more; output (B, K).
    """

    def __init__(self, channels: int, outputs: int, drop_rate: float = 0.0, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for stage, features in enumerate((width, 2 * width, 4 * width)):
            layers += _block(inputs, features) + _block(features, features)
            if stage < 2:
                layers.append(nn.MaxPool2d(2))
            inputs = features
        self.features = nn.Sequential(*layers)
        self.drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(inputs, outputs)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Raw outputs (B, K)."""
        features: Tensor = self.features(image_BCHW)
        outputs_BK: Tensor = self.head(self.drop(features.mean((2, 3))))
        return outputs_BK


class TextbookCNN(nn.Module):
    """Conv32 - pool - Conv64 - pool - Dense128 - dropout - Dense: the recipe of the introductory courses.

    Input (B, C, S, S) float32; output (B, K).
    """

    def __init__(self, channels: int, outputs: int, image_size: int, drop_rate: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 32, 3),
            nn.MaxPool2d(2),  # before the ReLU: the same numbers and gradients, and a quarter of the ReLU's work
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),
            nn.MaxPool2d(2),
            nn.ReLU(),
        )
        side = ((image_size - 2) // 2 - 2) // 2
        if side < 1:
            raise ValueError(
                f"model.name = 'textbook_cnn' needs images of 10 px or more, not data.image_size = {image_size}"
            )
        self.dense = nn.Linear(64 * side * side, 128)
        self.drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(128, outputs)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Raw outputs (B, K)."""
        features = self.features(image_BCHW).flatten(1)
        outputs_BK: Tensor = self.head(self.drop(self.dense(features).relu()))
        return outputs_BK
