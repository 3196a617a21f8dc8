"""Perception that is trained alone, by supervised learning: `python train.py see:TASK`.

To add a task, write a file with a subclass of `TaskConfig` and one of `Task`, and add a line to
`TASKS`.
"""

from __future__ import annotations

from typing import Any

from training.supervised.digits import Digits, DigitsConfig
from training.supervised.next_frame import NextFrame, NextFrameConfig
from training.supervised.objects import Objects, ObjectsConfig
from training.supervised.segments import Segments, SegmentsConfig
from training.supervised.task import Task, TaskConfig
from training.supervised.video import Video, VideoConfig

TASKS: dict[str, tuple[type[TaskConfig], type[Task[Any]]]] = {
    "digits": (DigitsConfig, Digits),
    "objects": (ObjectsConfig, Objects),
    "segments": (SegmentsConfig, Segments),
    "video": (VideoConfig, Video),
    "next_frame": (NextFrameConfig, NextFrame),
}
"""Tasks by name: configuration and class."""

__all__ = ["TASKS", "Digits", "DigitsConfig", "Task", "TaskConfig"]
