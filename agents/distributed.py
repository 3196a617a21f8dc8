"""Several processes that train one agent: the ranks that `torchrun` starts.

Each rank collects rollouts in its own environments, and all ranks have the same weights. What is
computed over a minibatch or a rollout is computed over those of all ranks: gradients, which are
averaged in one message per minibatch, moments of advantages, statistics of observations and
returns, and the decisions to stop an update. R ranks of N environments therefore learn what one
process with R N environments learns, to rounding.

With `sync_every`, ranks learn separately, and their weights are averaged every so often: local SGD
(Stich 2019), or federated averaging (McMahan et al. 2017).

Messages between ranks are tensors and JSON; nothing is unpickled. On CPUs they go through gloo, on
GPUs through NCCL. Without torchrun there is one rank, `ALONE`, and nothing is sent.

Axes: D numbers.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from agents.errors import AgentError
from agents.gradients import Gradients
from perception.normalization import Moments, RunningMeanStd

# Ranks wait for each other while one evaluates, saves, or replaces environments that hang. Those
# that have ended are noticed at once, whatever this is.
_PATIENCE = timedelta(hours=1)
_INLINE = 2**12  # Bytes that are sent with their length; what is longer takes a second message.
_LENGTH = 8  # Bytes of a length.
_POLL_S = 0.05
_BEGUN = "doomgrad/begun"
_PR_SET_PDEATHSIG = 1  # From Linux' prctl.h.


class RankError(AgentError):
    """Another rank has ended, or cannot be reached."""


class Ranks:
    """The processes that train one agent; this class is a process that trains it alone.

    A subclass overrides the four operations on tensors. Every rank must call the same methods in
    the same order.

    Args:
        rank: number of this process, in [0, size).
        size: number of processes.
        local_rank: number of this process among those on this machine.
        local_size: number of processes on this machine.

    Attributes:
        rank: as above.
        size: as above.
        local_rank: as above.
        local_size: as above.
        has_begun: at rank 0, whether ranks that `torchrun` started before, one of which has died,
            had already called `begin`.
    """

    has_begun = False

    def __init__(
        self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1
    ) -> None:
        self.rank, self.size = rank, size
        self.local_rank, self.local_size = local_rank, local_size

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which owns the run folder."""
        return self.rank == 0

    @property
    def is_group(self) -> bool:
        """Whether messages are sent; False if the process trains alone."""
        return type(self) is not Ranks

    def begin(self) -> None:
        """At rank 0, remember that the training has begun, for ranks that are restarted."""

    def add(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the ranks."""

    def collect(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks, which must have the same shape, in their order."""
        return [tensor]

    def collect_at_first(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks at rank 0, and nothing elsewhere; see `collect`."""
        return [tensor]

    def copy_first(self, tensor: Tensor) -> None:
        """Replace a tensor by that of rank 0."""

    def average(self, tensor: Tensor) -> None:
        """Replace a tensor by its mean over the ranks."""
        self.add(tensor)
        tensor.div_(self.size)

    def exchange(self, content: Any) -> list[Any]:
        """Return what all ranks passed, which can be written as JSON, in their order."""
        if not self.is_group:
            return [content]
        return [json.loads(each) for each in self._exchange(json.dumps(content).encode())]

    def _exchange(self, content: bytes) -> list[bytes]:
        sent = len(content).to_bytes(_LENGTH, "big") + content[:_INLINE]
        heads = [_bytes(part) for part in self.collect(_padded(sent, _LENGTH + _INLINE))]
        lengths = [int.from_bytes(head[:_LENGTH], "big") for head in heads]
        if max(lengths) <= _INLINE:
            contents = [head[_LENGTH:] for head in heads]
        else:
            contents = [_bytes(part) for part in self.collect(_padded(content, max(lengths)))]
        return [each[:length] for each, length in zip(contents, lengths, strict=True)]

    def bring_to_first(self, content: bytes) -> list[bytes]:
        """Return what all ranks passed at rank 0, in their order, and nothing elsewhere."""
        lengths = self.exchange(len(content))
        found = self.collect_at_first(_padded(content, max(lengths)))
        return [_bytes(part)[:n] for part, n in zip(found, lengths, strict=False)]

    def from_first(self, content: bytes) -> bytes:
        """Return what rank 0 passed; what others pass is ignored."""
        length = torch.tensor(len(content))
        self.copy_first(length)
        tensor = _padded(content if self.is_first else b"", int(length))
        self.copy_first(tensor)
        return _bytes(tensor)

    def moments(self, mean: Tensor, variance: Tensor, count: int) -> list[Moments]:
        """Return the moments of all ranks' batches, see `RunningMeanStd.merge`, in their order."""
        sent = torch.cat((mean.flatten(), variance.flatten(), mean.new_tensor([count])))
        found = [each.tensor_split((mean.numel(), -1)) for each in self.collect(sent)]
        return [(m.view_as(mean), v.view_as(variance), n.squeeze()) for m, v, n in found]


ALONE = Ranks()
"""One process without others."""


class TorchRanks(Ranks):
    """Ranks that `torchrun` started; the process group exists.

    Attributes:
        store: what all ranks, also those that are restarted, can read and write.
    """

    store: Store

    def begin(self) -> None:
        """See `Ranks.begin`."""
        self.store.set(_BEGUN, "")

    def add(self, tensor: Tensor) -> None:
        """See `Ranks.add`."""
        with _noticing_ends():
            dist.all_reduce(tensor)

    def collect(self, tensor: Tensor) -> list[Tensor]:
        """See `Ranks.collect`."""
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        with _noticing_ends():
            dist.all_gather(found, tensor)
        return found

    def collect_at_first(self, tensor: Tensor) -> list[Tensor]:
        """See `Ranks.collect_at_first`."""
        found = [torch.empty_like(tensor) for _ in range(self.size)] if self.is_first else []
        with _noticing_ends():
            dist.gather(tensor, found or None)
        return found

    def copy_first(self, tensor: Tensor) -> None:
        """See `Ranks.copy_first`."""
        with _noticing_ends():
            dist.broadcast(tensor, 0)


@contextlib.contextmanager
def _noticing_ends() -> Iterator[None]:
    """Convert PyTorch's errors about ranks that cannot be reached.

    Raises:
        RankError: If one cannot.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise RankError(
            "another rank of this training has ended, and said why, or does not answer; the "
            f"training resumes from its last checkpoint ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def launched_ranks() -> TorchRanks | None:
    """Return this process's place among the ranks that `torchrun` starts; None without it.

    It is read from environment variables; nothing is sent.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return None
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank = int(os.environ.get("LOCAL_RANK", rank))
    return TorchRanks(rank, size, local_rank, int(os.environ.get("LOCAL_WORLD_SIZE", size)))


@contextlib.contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """Meet the ranks that `torchrun` starts; without it, this process is alone.

    If `torchrun` is killed, this process gets SIGTERM, because nobody else would end it.

    Args:
        device: as for `choose_device`. Each rank of a machine uses a GPU of its own.

    Raises:
        AgentError: If the machine has fewer GPUs than ranks.
        RankError: If the ranks do not meet.
    """
    ranks = launched_ranks()
    if ranks is None:
        yield ALONE
        return
    backend = "gloo"
    if device != "cpu" and (gpus := torch.cuda.device_count()):
        if ranks.local_size > gpus:
            raise AgentError(
                f"{ranks.local_size} ranks need a GPU each, and this machine has {gpus}; use "
                f"--nproc-per-node {gpus}, or --device cpu"
            )
        torch.cuda.set_device(ranks.local_rank)
        backend = "cpu:gloo,cuda:nccl"
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    try:
        store, _, _ = next(rendezvous("env://", timeout=_PATIENCE))
        if ranks.is_first:
            ranks.store, ranks.has_begun = store, store.check([_BEGUN])
        dist.init_process_group(
            backend,
            store=PrefixStore(met(store, ranks), store),
            rank=ranks.rank,
            world_size=ranks.size,
            timeout=_PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        raise RankError(f"the ranks of this training cannot meet: {_first_line(error)}") from error
    try:
        yield ranks
    finally:
        # Other ranks that wait for this one notice that it has ended.
        dist.destroy_process_group()


def met(store: Store, ranks: Ranks) -> str:
    """Wait for all ranks, and return a name that they agree on, and that no ranks had before.

    When `torchrun` starts ranks anew, their store still holds the addresses of those that died, and
    a rank that reads one before it is replaced would fail to connect. No number tells the starts
    apart: `torchrun` counts those of each machine separately. So rank 0 answers every name that a
    rank has left, until as many as there are have understood.

    Args:
        store: the store that all ranks share.
        ranks: the ranks.
    """
    mine = secrets.token_hex(8)
    if not ranks.is_first:
        store.set(f"doomgrad/rank{ranks.rank}", mine)
        name: str = store.get(f"doomgrad/{mine}").decode()
        store.add(f"doomgrad/{name}/met", 1)
        return name
    while store.add(f"doomgrad/{mine}/met", 0) < ranks.size - 1:
        for key in (f"doomgrad/rank{rank}" for rank in range(1, ranks.size)):
            if store.check([key]):
                store.set(f"doomgrad/{store.get(key).decode()}", mine)
        time.sleep(_POLL_S)
    return mine


class Averaging:
    """How an agent learns together with the same agent of other ranks.

    Args:
        ranks: the ranks.
        sync_every: average the weights after every so many updates, in which ranks learn
            separately. None: average the gradients of every minibatch.

    Attributes:
        ranks: as above.
        sync_every: as above.
    """

    def __init__(self, ranks: Ranks = ALONE, sync_every: int | None = None) -> None:
        self.ranks, self.sync_every = ranks, sync_every

    @property
    def of_gradients(self) -> bool:
        """Whether ranks take every step of the optimiser together."""
        return self.ranks.is_group and self.sync_every is None

    def gradients(
        self, gradients: Gradients, metrics: Mapping[str, Tensor], parameters: Sequence[Tensor]
    ) -> tuple[Gradients, dict[str, Tensor]]:
        """Return the means of gradients and of metrics over the ranks; one message is sent.

        Minibatches of all ranks have the same size, so that the mean is that of all together.

        Args:
            gradients: of a minibatch.
            metrics: of a minibatch, scalars; the names must be the same on all ranks.
            parameters: the parameters.
        """
        if not self.of_gradients:
            return gradients, dict(metrics)
        like = parameters[0]
        # A parameter that the loss does not depend on, on any rank, must not be changed.
        given = like.new_tensor([gradient is not None for gradient in gradients])
        parts = [
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(parameters, gradients, strict=True)
        ]
        names = sorted(metrics)
        flat = torch.cat(
            [given, *(metrics[n].reshape(1).to(like) for n in names), *map(torch.flatten, parts)]
        )
        self.ranks.average(flat)
        given, values, rest = flat.tensor_split((len(given), len(given) + len(names)))
        means: Gradients = [
            each.view_as(part)
            for each, part in zip(rest.split([p.numel() for p in parts]), parts, strict=True)
        ]
        missing = [i for i, gradient in enumerate(gradients) if gradient is None]
        for i, others in zip(missing, given[missing].tolist() if missing else (), strict=True):
            means[i] = means[i] if others else None
        return means, dict(zip(names, values.unbind(), strict=True))

    def mean_and_deviation(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the sample standard deviation of numbers of all ranks, as scalars.

        Args:
            numbers: of any shape, float32, as many on every rank.
        """
        if not self.of_gradients:
            return numbers.mean(), numbers.std()
        exact = numbers.double()
        found = self.ranks.moments(exact.mean(), exact.var(correction=0), exact.numel())
        total = exact.numel() * self.ranks.size
        mean = torch.stack([mean for mean, _, _ in found]).mean()
        squares = torch.stack([variance + (m - mean) ** 2 for m, variance, _ in found])
        deviation = (squares.sum() * exact.numel() / (total - 1)).sqrt()
        return mean.to(numbers), deviation.to(numbers)

    def first_problem(self, problem: str | None) -> str | None:
        """Return what is wrong on this rank, or else on the first one where something is."""
        if not self.ranks.is_group or self.ranks.size == 1:
            return problem
        problems = enumerate(self.ranks.exchange(problem))
        found = [f"{each} of rank {rank}" for rank, each in problems if each]
        return found[0] if found else None

    def means(self, values: Tensor) -> Tensor:
        """Return the means of (D,) numbers over the ranks."""
        if self.ranks.is_group:
            self.ranks.average(values)
        return values

    def is_due(self, num_updates: int, total_updates: int) -> bool:
        """Return whether weights are to be averaged now: every so often, and at the end.

        Args:
            num_updates: number of updates so far.
            total_updates: number of updates in the whole training.
        """
        if self.sync_every is None:
            return False
        return num_updates % self.sync_every == 0 or num_updates == total_updates

    def weights(self, parameters: Sequence[Tensor]) -> None:
        """Average the weights of ranks that learn separately.

        The optimiser's statistics stay those of each rank, as in PyTorch's post-local SGD and in
        DiLoCo (Douillard et al. 2023): averaging them too would triple what is sent.

        Args:
            parameters: the parameters.
        """
        if self.sync_every is None or not self.ranks.is_group:
            return
        flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
        self.ranks.average(flat)
        parts = flat.split([parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.detach().copy_(part.view_as(parameter))

    def statistics(self, modules: Iterable[nn.Module]) -> None:
        """Let the running statistics in modules be updated with the batches of all ranks."""
        if not self.ranks.is_group:
            return
        for module in modules:
            for part in module.modules():
                if isinstance(part, RunningMeanStd):
                    part.batches = _of_all(self.ranks)


def _of_all(ranks: Ranks) -> Callable[[Tensor, Tensor, int], list[Moments]]:
    """Return `ranks.moments` as a function, which copies of modules share."""

    def batches(mean: Tensor, variance: Tensor, count: int) -> list[Moments]:
        return ranks.moments(mean, variance, count)

    return batches


def _padded(content: bytes, length: int) -> Tensor:
    """Return bytes as a (length,) uint8 tensor, with zeros at the end."""
    return torch.frombuffer(bytearray(content.ljust(max(1, length), b"\0")), dtype=torch.uint8)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.numpy().tobytes()
