"""Tests of `training.ranks`, with ranks that are threads; tests/test_torchrun.py has processes."""

from __future__ import annotations

import pytest
import torch

from storage.checkpoint import load_training, save_training
from tests.agents.synthetic import assert_same, make_rollout
from tests.agents.test_distributed import NUM_ENVS, STEPS, learn, make_agent, state_of
from tests.agents.thread_ranks import run_ranks
from training.config import default_config, with_values
from training.errors import TrainingError
from training.progress import Progress
from training.ranks import expect_same, gather_states, share_start, with_ranks

CONFIG = with_values(default_config("CartPole-v1"), {"num_ranks": 2})
PROGRESS = Progress(env_steps=96, returns=[1.0], best_score=2.0)


def optimizer_of(agent):
    states = agent.optimizer.state_dict()["state"]
    return {f"{i}/{name}": tensor for i, each in states.items() for name, tensor in each.items()}


def test_all_ranks_start_with_the_agent_of_the_first():
    def start(ranks):
        agent = make_agent(ranks=ranks)
        with torch.no_grad():
            for parameter in agent.parameters:
                parameter.add_(ranks.rank)
        progress = PROGRESS if ranks.is_first else Progress()
        progress, state = share_start(ranks, agent, CONFIG, progress, {})
        return state_of(agent), progress, state

    (first, _, _), (second, progress, state) = run_ranks(start)
    assert_same(second, first)
    assert progress == PROGRESS
    assert state == {}


def test_ranks_that_learn_differently_are_refused():
    run_ranks(lambda ranks: expect_same(ranks, CONFIG))

    def start(ranks):
        length = 32 if ranks.rank == 1 else 64
        with pytest.raises(
            TrainingError, match=r"^rank 1 has agent\.rollout_length 32, and rank 0"
        ):
            expect_same(ranks, with_values(CONFIG, {"agent.rollout_length": length}))

    run_ranks(start)


@pytest.mark.parametrize("sync_every", [None, 3])
def test_each_rank_resumes_with_what_was_its_own(tmp_path, sync_every):
    """With averages of weights, weights and optimisers of ranks differ between two averages."""
    rollouts = [make_rollout(make_agent().policy, STEPS, NUM_ENVS, seed=s) for s in range(2)]
    file = tmp_path / "checkpoint"

    def train(ranks):
        agent = make_agent(ranks=ranks, sync_every=sync_every)
        learn(agent, rollouts, ranks)
        mine = {"episode_seeds": torch.arange(3) + 10 * ranks.rank}
        states = gather_states(agent, mine)
        if ranks.is_first:
            save_training(file, agent, {"env_steps": 96}, states)
        return state_of(agent), optimizer_of(agent), agent.reward_scaler.running, mine

    def resume(ranks):
        agent, progress, state = make_agent(ranks=ranks, sync_every=sync_every), Progress(), {}
        if ranks.is_first:
            counters, state = load_training(file, agent, num_ranks=2)
            progress = Progress(**counters)
        progress, mine = share_start(ranks, agent, CONFIG, progress, state)
        assert progress == Progress(env_steps=96)
        assert agent.num_updates == 2
        return state_of(agent), optimizer_of(agent), agent.reward_scaler.running, mine

    before, after = run_ranks(train), run_ranks(resume)
    for saved, resumed in zip(before, after, strict=True):
        assert_same(resumed[0], saved[0])
        assert_same(resumed[1], saved[1])
        assert torch.equal(resumed[2], saved[2])
        assert_same(resumed[3], saved[3])
    weights = "policy/critic.weight"
    assert torch.equal(before[0][0][weights], before[1][0][weights]) == (sync_every is None)


def test_env_steps_of_all_ranks_count():
    config = default_config("CartPole-v1")
    assert with_ranks(config, None) is config
    for of_both in run_ranks(lambda ranks: with_ranks(config, ranks)):
        assert of_both.num_ranks == 2
        assert of_both.env_steps_per_update == 2 * config.env_steps_per_update


def test_one_process_has_no_weights_to_average():
    with pytest.raises(TrainingError, match="start them with torchrun"):
        with_ranks(with_values(CONFIG, {"sync_every": 4}), None)
