"""The unrolled network: a small U-Net on the object's canvas, between two stacks of sweeps.

It takes the object after the first sweeps and returns a better one of the same shape (any height
and width).  `specs/model-graph.md` has the graph and the canonical weight names, which are the
names of this module's parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

NOISE_FLOOR = 1.0
"""Photons per object pixel below which its noise is taken as that of one photon."""

LEAK = 0.1
"""Slope of the activation for negative values."""

TILE_PX = 1024
"""Largest side of a canvas that is computed in one piece; larger ones are tiled."""


class Block(nn.Module):
    """Two 3 x 3 convolutions, each followed by a leaky ReLU, which cannot die."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.leaky_relu(self.conv1(x), LEAK)
        return nn.functional.leaky_relu(self.conv2(x), LEAK)


class UNet(nn.Module):
    """(B, 3, h, w) -> (B, 2, h, w), h and w multiples of `multiple`; starts as zero."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        inputs = (3, *channels[:-1])
        self.encoder = nn.ModuleList(Block(i, o) for i, o in zip(inputs, channels, strict=True))
        self.decoder = nn.ModuleList(
            Block(deep + skip, skip)
            for deep, skip in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(channels[0], 2, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.multiple = 2 ** (len(channels) - 1)
        # Two 3 x 3 convolutions a level reach two pixels of that level, down and up again.
        self.reach_px = 4 * sum(2**level for level in range(len(channels))) + self.multiple

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(nn.functional.avg_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for block in self.decoder:
            x = nn.functional.interpolate(x, scale_factor=2, mode='nearest')
            x = block(torch.cat([x, skips.pop()], dim=1))
        return self.head(x)


class UnrolledNetwork(nn.Module):
    """Corrects an object (h, w) complex64, knowing how many photons saw each pixel."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.unet = UNet(channels)

    def forward(self, object_: Tensor, photons: Tensor, gauge: Tensor) -> Tensor:
        """Return the corrected object.

        Parameters
        ----------
        object_ : (h, w) complex64
        photons : (h, w) float32
            Photons that fell on each pixel: the network's measure of noise.
        gauge : () complex64
            Mean transmission (`mean_transmission`), divided out so that a global phase or scale of
            the object changes nothing but the same phase and scale of the result.
        """
        noise = torch.rsqrt(photons + NOISE_FLOOR)
        plain = object_ / gauge
        features = torch.stack([plain.real - 1, plain.imag, noise])[None]
        correction = self._padded(features)[0].float()
        # Where no photon fell the data say nothing, and the object stays as it was.
        seen = photons / (photons + NOISE_FLOOR)
        # In units of the noise, corrections are of order one at any dose.
        return object_ + gauge * (seen * noise) * torch.complex(correction[0], correction[1])

    def _padded(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        multiple = self.unet.multiple
        padding = (0, -width % multiple, 0, -height % multiple)
        padded = nn.functional.pad(features, padding, mode='replicate')
        padded = padded.contiguous(memory_format=torch.channels_last)
        return self.unet(padded)[..., :height, :width]

    @torch.no_grad()
    def tiled(self, object_: Tensor, photons: Tensor, gauge: Tensor) -> Tensor:
        """Return `forward` of a canvas of any size in bounded memory: tiles with wide margins."""
        if max(object_.shape) <= TILE_PX:
            return self(object_, photons, gauge)
        multiple = self.unet.multiple
        margin = -(-self.unet.reach_px // multiple) * multiple
        result = torch.empty_like(object_)
        for y in range(0, object_.shape[0], TILE_PX):
            for x in range(0, object_.shape[1], TILE_PX):
                top, left = max(0, y - margin), max(0, x - margin)
                outer = (
                    slice(top, y + TILE_PX + margin),
                    slice(left, x + TILE_PX + margin),
                )
                tile = self(object_[outer], photons[outer], gauge)
                inner = tile[y - top : y - top + TILE_PX, x - left : x - left + TILE_PX]
                result[y : y + TILE_PX, x : x + TILE_PX] = inner
        return result


def mean_transmission(object_: Tensor, photons: Tensor) -> Tensor:
    """Return the photon-weighted mean of the object, () complex64: rms amplitude, mean phase."""
    weight = photons / photons.sum()
    mean = (object_ * weight).sum()
    power = (object_ * object_.conj()).real.mul(weight).sum()
    return torch.sqrt(power) * torch.sgn(mean)
