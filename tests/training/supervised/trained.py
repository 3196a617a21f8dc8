"""A short training on scenes, without the project's own loop."""

from __future__ import annotations

import torch

from agents.device import single_thread
from perception import PerceptionConfig
from perception.encoders import MLPConfig
from training.supervised.network import build_network
from training.supervised.scoring import statistics_of


def learned(task, steps):
    """Return statistics of the test, after steps of an optimiser on minibatches."""
    train, test = task.load("train"), task.load("test")
    torch.manual_seed(0)
    config = PerceptionConfig(encoder=MLPConfig())
    network = build_network(task.specs(train), config, task.head)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    with single_thread():
        for _ in range(steps):
            chosen = torch.randint(len(train["image"]), (64,))
            batch = {name: part[chosen] for name, part in train.items()}
            loss = task.loss(task.predict(network, batch), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return network, test, statistics_of(task, network, test)
