"""Stable-Baselines3's first example of parallel environments with ours; two lines are different.

python examples/sb3_vec_env.py --timesteps 100000
"""

import argparse

# Was: from stable_baselines3.common.env_util import make_vec_env. It is imported first, because it
# sets an environment variable that makes torch's threads leave the cores to the environments.
from envs.sb3 import make_vec_env  # isort: skip

from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

parser = argparse.ArgumentParser()
parser.add_argument("--timesteps", type=int, default=100_000)
timesteps = parser.parse_args().timesteps

# Parallel environments; was: make_vec_env("CartPole-v1", n_envs=4)
vec_env = make_vec_env("doomgrad/Basic-v0", n_envs=16, seed=0, width=80, height=60)

model = PPO("CnnPolicy", vec_env, n_steps=64, batch_size=256, n_epochs=4, seed=0, verbose=1)
model.learn(total_timesteps=timesteps)

mean, deviation = evaluate_policy(model, vec_env, n_eval_episodes=32)
print(f"mean return {mean:.1f} +/- {deviation:.1f} over 32 episodes")
vec_env.close()
