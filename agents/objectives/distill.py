"""Policy distillation on the states that the student visits (Czarnecki et al. 2019).

The student learns to choose as the teacher would. Since the student acts, it learns what to do in
states that its own mistakes lead to (as in DAgger; Ross et al. 2011), which states of the teacher
would not teach. The loss is KL(teacher || student) of the actions, and the squared difference of
the values. The teacher may be of any size and have any memory, which runs along from the start of
each episode. `--loss-coef 0` leaves out the agent's own loss, so that nothing but the teacher is
learned from.

Axes: T rollout length, N environments, t and n steps and environments of a minibatch, A choices or
numbers of an action, S and M rows and width of the teacher's memory's state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.errors import AgentError
from agents.objectives.objective import Objective, ObjectiveConfig
from agents.policy import Policy, PolicyOutput
from agents.rollout import Minibatch, Rollout

_CHOICES, _VALUES = "distill/choices", "distill/values"  # Names in `Minibatch.targets`.


@dataclass(frozen=True, kw_only=True)
class DistillConfig(ObjectiveConfig):
    """Learning from a teacher, which `--teacher` names."""

    coef: float = 1.0
    """Weight of the loss, relative to the agent's own. 0: the objective is not computed."""
    value_coef: float = 0.5
    """Weight of the squared difference of values, beside the divergence of actions."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if not self.value_coef >= 0:
            raise ValueError(f"value_coef must not be negative, got {self.value_coef}")


class Distill(Objective[DistillConfig]):
    """The divergence of a student from its teacher, in nats.

    The metrics are `kl`, `value_error` in the student's unit, and `agreement`, the share of env
    steps in which the most likely actions are the same.

    Attributes:
        teacher_state: (S, N, M) float32, the state of the teacher's memory before the next rollout.
    """

    teacher_state: Tensor
    _teacher: tuple[Policy, ...] = ()  # In a tuple: its weights do not belong to checkpoints.
    _value_scale = 1.0

    def take_teacher(self, teacher: Policy, *, num_envs: int, value_scale: float) -> None:
        """Set the teacher; called once, before anything is learned.

        Args:
            teacher: its observations and actions are those of the student.
            num_envs: N.
            value_scale: factor from its values to those of the student.
        """
        self._teacher = (teacher.requires_grad_(requires_grad=False).eval(),)
        self._value_scale = value_scale
        self.register_buffer("teacher_state", teacher.initial_state(num_envs))

    @torch.no_grad()
    def targets_of(self, policy: Policy, rollout: Rollout) -> dict[str, Tensor]:
        """Return what the teacher would choose, (T, N, A), and its values, (T, N), float32.

        Raises:
            AgentError: If there is no teacher.
        """
        if not self._teacher:
            raise AgentError("the objective distill needs a teacher; add --teacher RUN")
        (teacher,) = self._teacher
        choices, values = [], []
        # Step by step, because all frames of a rollout at once may not fit into memory.
        for step, starts in enumerate(rollout.episode_starts):
            obs = {name: part[step : step + 1] for name, part in rollout.obs.items()}
            output: PolicyOutput = teacher(obs, self.teacher_state, starts[None])
            choices.append(teacher.actor.layer(output.features[0]))
            values.append(output.values[0])
            self.teacher_state = output.memory_state
        return {_CHOICES: torch.stack(choices), _VALUES: self._value_scale * torch.stack(values)}

    def loss(
        self, policy: Policy, output: PolicyOutput, batch: Minibatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective.loss`."""
        (teacher,) = self._teacher
        theirs, ours = teacher.actor.distribution(batch.targets[_CHOICES]), output.distribution
        kl = theirs.kl(ours).mean()
        value_error = (output.values - batch.targets[_VALUES]).square().mean()
        with torch.no_grad():
            same = theirs.mode() == ours.mode()
            agreement = (same.flatten(2).all(2) if same.dim() > 2 else same).float().mean()
        loss = kl + self.config.value_coef * value_error
        return loss, {"kl": kl, "value_error": value_error, "agreement": agreement}
