"""A decoder of future frames that moves what is there, and draws what is new.

Axes: B clips, T future frames, H, W a frame, h, w cells of 8 x 8 pixels, K buttons, F features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.encoders import orthogonal

_CELL = 8  # Side of a cell, in pixels.
# Logits of 0.02 and 0.98: at first, the last frame is repeated, and hardly anything drawn.
_DARK, _COPIED = -4.0, 4.0


class CopyingDecoder(nn.Module):
    """Computes future frames: the last past one, moved, and under a mask something new.

    A recurrent network of convolutions (a convolutional GRU, Ballas et al. 2016) on a map of cells
    starts from the features and from the last two frames, which show what moves where. From its
    state after each step come a flow (from where each pixel comes, relative to the frame before), a
    mask and new content. Flows are composed, so that each frame is interpolated once, from the last
    past one, and does not blur with time (Finn et al. 2016 mask frames that are moved and new
    content; Liu et al. 2017 move by a flow).

    Args:
        num_features: F.
        size: (H, W).
        num_buttons: K.
        channels: of the map.
    """

    def __init__(
        self, num_features: int, *, size: tuple[int, int], num_buttons: int, channels: int
    ) -> None:
        super().__init__()
        self.size = size
        self.cells = [-(-side // _CELL) for side in size]
        self.of_features = nn.Linear(num_features, channels * self.cells[0] * self.cells[1])
        self.of_frames = nn.Sequential(
            nn.PixelUnshuffle(2),
            orthogonal(nn.Conv2d(2 * 4, channels, 5, padding=2)),
            nn.ReLU(),
            orthogonal(nn.Conv2d(channels, channels, 4, stride=2, padding=1)),
            nn.ReLU(),
            orthogonal(nn.Conv2d(channels, channels, 4, stride=2, padding=1), 1.0),
        )
        self.gates = nn.Conv2d(2 * channels + num_buttons, 2 * channels, 3, padding=1)
        self.candidate = nn.Conv2d(2 * channels + num_buttons, channels, 3, padding=1)
        self.flow = orthogonal(nn.Conv2d(channels, 2, 3, padding=1), 0.1)
        self.drawing = nn.Sequential(
            orthogonal(nn.Conv2d(channels, 2 * channels, 3, padding=1)),
            nn.ReLU(),
            nn.PixelShuffle(2),
            orthogonal(nn.Conv2d(channels // 2, 2 * channels, 3, padding=1)),
            nn.ReLU(),
            nn.PixelShuffle(2),
            last := orthogonal(nn.Conv2d(channels // 2, 2 * 4, 3, padding=1), 0.1),
            nn.PixelShuffle(2),
        )
        assert isinstance(last.bias, Tensor)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([_COPIED] * 4 + [_DARK] * 4))

    def forward(self, features: Tensor, recent: Tensor, buttons: Tensor) -> Tensor:
        """Return the future frames, (B, T, H, W) float32 in [0, 1].

        Args:
            features: (B, F) float32.
            recent: (B, 2, H, W) float32, the last two past frames.
            buttons: (B, T, K) float32, the values of the buttons that are held before each.
        """
        length = buttons.shape[1]
        maps = self._maps(features, recent, buttons)
        drawn = self.drawing(maps)[..., : self.size[0], : self.size[1]].sigmoid()
        mask, new = drawn.unflatten(0, (length, -1)).unbind(2)
        copied = moved(recent[:, 1], self._steps(maps).unflatten(0, (length, -1)))
        frames: Tensor = mask * copied + (1 - mask) * new
        return frames.transpose(0, 1)

    def _maps(self, features: Tensor, recent: Tensor, buttons: Tensor) -> Tensor:
        """Return the states after each step, (T * B, channels, h, w)."""
        height, width = (n * _CELL for n in self.cells)
        whole = F.pad(recent, (0, width - recent.shape[-1], 0, height - recent.shape[-2]))
        seen = self.of_frames(whole)
        given = seen + self.of_features(features).view_as(seen)
        state, states = given.tanh(), []
        for held in buttons.unbind(1):
            inputs = torch.cat([given, held[..., None, None].expand(-1, -1, *self.cells)], 1)
            reset, update = self.gates(torch.cat([inputs, state], 1)).sigmoid().chunk(2, 1)
            proposed = self.candidate(torch.cat([inputs, reset * state], 1)).tanh()
            state = update * state + (1 - update) * proposed
            states.append(state)
        return torch.cat(states)

    def _steps(self, maps: Tensor) -> Tensor:
        """Return from where each pixel comes, relative to it, in pixels, (T * B, H, W, 2)."""
        coarse = self.flow(maps) * _CELL
        cells = coarse.shape[-2:]
        fine = F.interpolate(
            coarse, [side * _CELL for side in cells], mode="bilinear", align_corners=False
        )
        return fine[..., : self.size[0], : self.size[1]].movedim(1, -1)


def moved(image: Tensor, steps: Tensor) -> Tensor:
    """Return an image that is moved several times, (T, B, H, W); pixels at the border are repeated.

    Args:
        image: (B, H, W) float32.
        steps: (T, B, H, W, 2) float32, from where each pixel comes in each move, relative to it, in
            pixels: columns, then rows.
    """
    height, width = image.shape[-2:]
    rows, columns = (torch.arange(n, device=image.device).float() for n in (height, width))
    here = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)  # (H, W, 2), x then y.
    scale = torch.tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)], device=image.device)

    def sampled(planes: Tensor, places: Tensor) -> Tensor:
        return F.grid_sample(planes, places * scale - 1, padding_mode="border", align_corners=True)

    origin = here.expand(len(image), -1, -1, -1)
    frames = []
    for step in steps:
        origin = sampled(origin.movedim(-1, 1), here + step).movedim(1, -1)
        frames.append(sampled(image[:, None], origin)[:, 0])
    return torch.stack(frames)
