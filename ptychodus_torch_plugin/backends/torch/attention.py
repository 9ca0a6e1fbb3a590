"""CBAM, what a level of the encoder of 'cnn' may do before pooling: `cbam_encoder`.

Convolutional block attention (Woo, Park, Lee & Kweon, ECCV 2018): each channel is weighed by what
it holds anywhere, then each pixel by what it holds in any channel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ptychodus_torch_plugin.config.model import CBAM_REDUCTION

SPATIAL_PX = 7
"""Side of the kernel that looks at a pixel and its surroundings."""


class Attention(nn.Module):
    """Channels (B, c, h, w) times a gate for each channel, then times a gate for each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = channels // CBAM_REDUCTION
        first, second = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)
        self.channel = nn.ModuleList([first, second])
        self.spatial = nn.Conv2d(2, 1, SPATIAL_PX, padding=SPATIAL_PX // 2, bias=False)
        nn.init.kaiming_normal_(first.weight, nonlinearity='relu')
        nn.init.xavier_normal_(second.weight)
        nn.init.xavier_normal_(self.spatial.weight)
        for linear in (first, second):
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        gates = torch.sigmoid(self._weighed(x.mean((2, 3))) + self._weighed(x.amax((2, 3))))
        x = x * gates[:, :, None, None]
        seen = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.spatial(seen))

    def _weighed(self, pooled: Tensor) -> Tensor:
        first, second = self.channel
        weighed: Tensor = second(functional.relu(first(pooled)))
        return weighed
