"""A page about an attacked episode: clean frame, attacked frame and amplified difference.

Axes: T env steps, H, W screen, P planes of pixels.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.device import choose_device
from agents.policy import Obs
from envs import SharedVectorEnv
from envs.playback import ActionNames, env_steps_per_second
from envs.video import mp4_bytes
from evaluation.entries import Contestant
from evaluation.replay.page import Track, page
from evaluation.replay.video import events
from evaluation.robustness.measure import Cell, Plan, change_of, file_of, image_spec, played
from evaluation.robustness.player import ChangedPlayer
from evaluation.robustness.shifts import Planes

_HEIGHT = 240  # Of each of the three pictures, in pixels; even, as their width.
_BAR = 24  # Height of the line of text above them.
_GAP = 4  # Between pictures, in pixels.
_CRF = 18  # What an attack changes is faint: a low quality would hide it.


def attacked_page(contestant: Contestant, plan: Plan, cell: Cell) -> tuple[str, float]:
    """Play the first seed under an attack, and return a page about it, and the return.

    Args:
        contestant: the policy.
        plan: which episode is played, and how.
        cell: the attack.
    """
    file, device = file_of(contestant), choose_device(plan.protocol.device)
    policy = file.policy.to(device)
    spec = image_spec(policy)
    assert spec is not None
    part = next(name for name, each in policy.specs.items() if each is spec)
    seen: list[tuple[Tensor, Tensor]] = []

    def watch(clean: Obs, changed: Obs) -> None:
        seen.append((clean[part][0].cpu(), changed[part][0].cpu()))

    player = ChangedPlayer(policy, change_of(cell, contestant, plan), watch)
    protocol = replace(plan.protocol, episodes=1, num_envs=1)
    with contextlib.closing(SharedVectorEnv(contestant.config, 1)) as envs:
        (episode,) = played(player, envs, file, protocol, greedy=plan.greedy, device=device)
    planes, epsilon = Planes.of(spec), cell.epsilon
    label = f"{cell.name}, epsilon {epsilon:g}/255" if epsilon is not None else cell.name
    pictures = [_triptych(clean, changed, planes, label) for clean, changed in seen]
    fps = env_steps_per_second(contestant.config)
    names, variables = ActionNames(contestant.config), {"return": np.cumsum(episode.rewards)}
    track = Track(
        name=str(contestant.path),
        about=f"seed {episode.seed} · {'greedy' if plan.greedy else 'sampled'} · {label}",
        # One picture more than env steps: what is seen last stays.
        video=mp4_bytes([*pictures, pictures[-1]], fps, crf=_CRF, key_frame_every=round(fps)),
        rewards=episode.rewards,
        values=episode.values,
        surprises=episode.surprises.astype(np.float32),
        probabilities=episode.probabilities,
        choices=names.choices if episode.probabilities.shape[1] else (),
        actions=tuple(map(names.describe, episode.actions)),
        variables=variables,
        events=events(episode, {}, died=False),
    )
    title = f"{contestant.config.env} under attack"
    return page(title, [track], fps=fps, pictures_per_step=1), episode.episode_return


def _triptych(clean: Tensor, changed: Tensor, planes: Planes, label: str) -> NDArray[np.uint8]:
    """Return a picture of three frames side by side, (_HEIGHT + _BAR, W, 3) uint8 RGB.

    Args:
        clean: (H, W, P) pixels.
        changed: (H, W, P), the same after the change.
        planes: the planes of the image.
        label: what was done.
    """
    before, after = (_newest(pixels, planes) for pixels in (clean, changed))
    difference = after - before
    largest = float(np.abs(difference).max())
    factor = 0.5 / largest if largest else 1.0
    frames = (before, after, 0.5 + factor * difference)
    texts = ("clean", label, f"difference times {factor:.0f}")
    parts = [_framed(frame, text) for frame, text in zip(frames, texts, strict=True)]
    gap = np.zeros((len(parts[0]), _GAP, 3), np.uint8)
    return np.hstack([parts[0], gap, parts[1], gap, parts[2]])


def _newest(pixels: Tensor, planes: Planes) -> NDArray[np.float32]:
    """Return the newest frame of (H, W, P) pixels, (H, W, 3) float32 RGB in [0, 1]."""
    if planes.palette_channels:
        chosen: Sequence[int] = planes.colours[len(planes.palette_channels) - 1]
    elif planes.colours:
        chosen = planes.colours[-1]
    else:
        chosen = planes.drawn[-1:] * 3 if planes.drawn else (0, 0, 0)
    frame: NDArray[np.float32] = pixels[..., list(chosen)].to(torch.float32).numpy()
    return frame


def _framed(frame: NDArray[np.float32], text: str) -> NDArray[np.uint8]:
    """Return an enlarged frame with a line of text above it, uint8 RGB."""
    height, width = frame.shape[:2]
    size = (max(2, 2 * round(_HEIGHT * width / height / 2)), _HEIGHT)
    image = np.round(255 * frame.clip(0, 1)).astype(np.uint8)
    image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    bar = np.zeros((_BAR, size[0], 3), np.uint8)
    white = (255, 255, 255)
    cv2.putText(bar, text, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, white, 1, cv2.LINE_AA)
    return np.vstack([bar, image])
