"""Play Doom with an exported policy: with ONNX Runtime, NumPy and `envs`, but without PyTorch.

    python evaluate.py export zoo/basic
    python examples/play_onnx.py runs/zoo/basic/policy.onnx --episodes 10

The returns are those of `python evaluate.py score`: the same seed is the same episode.
"""

import argparse
import contextlib
import json
import os
import resource

import msgspec
import numpy as np
import onnxruntime

from envs import EnvConfig, make
from envs.registry import check_no_import

parser = argparse.ArgumentParser(description="Play Doom with an exported policy.")
parser.add_argument("policy", help="a file that `python evaluate.py export` wrote")
parser.add_argument("--episodes", type=int, default=10, help="number of episodes")
parser.add_argument(
    "--seed", type=int, default=0, help="seed of the first episode; the others follow"
)
parser.add_argument(
    "--sample",
    action="store_true",
    help="sample actions; by default, the most likely ones are taken",
)
args = parser.parse_args()
if args.episodes < 1 or args.seed < 0:
    parser.exit(2, "error: --episodes must be at least 1, and --seed at least 0\n")
# A file of a few bytes may ask for any memory; ONNX Runtime then fails, and prints nothing itself.
resource.setrlimit(resource.RLIMIT_DATA, (2**30, resource.getrlimit(resource.RLIMIT_DATA)[1]))
onnxruntime.set_default_logger_severity(4)
try:
    if not os.path.isfile(args.policy):
        raise FileNotFoundError("there is no such file")
    session = onnxruntime.InferenceSession(args.policy)
    about = json.loads(session.get_modelmeta().custom_metadata_map["doomgrad"])
    config = msgspec.convert(about["env"], EnvConfig)
    check_no_import(config)  # A file does not decide what is imported.
    sizes = [int(size) for size in about["actions"]["sizes"]]
    inputs = {part.name: part.shape for part in session.get_inputs()}
    outputs = [part.name for part in session.get_outputs()]
    needed = ["greedy_actions", *(["probabilities"] if args.sample else [])]
    if not set(needed) <= set(outputs):
        raise ValueError(f"it has no {' and '.join(needed)}")
    state = np.zeros((1, *inputs.get("memory_state", [])[1:]), np.float32)
    env = make(config)
except Exception as error:  # The errors of ONNX Runtime have no common base class.
    reason = ascii(str(error))[:300]  # It may quote what the file contains.
    parser.exit(2, f"error: {args.policy} is not a policy that evaluate.py exported: {reason}\n")

ends = np.cumsum(sizes)  # Ends of the groups of choices.
returns = np.zeros(args.episodes)
with contextlib.closing(env):
    for episode, seed in enumerate(range(args.seed, args.seed + args.episodes)):
        draw = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,))).random
        (obs, _), start, done = env.reset(seed=seed), True, False
        while not done:
            parts = obs if isinstance(obs, dict) else {"obs": obs}
            batch = {name: part[None] for name, part in parts.items()}
            batch |= {"memory_state": state, "episode_starts": np.array([start])}
            try:
                results = session.run(outputs, {name: batch[name] for name in inputs})
            except Exception as error:
                reason = ascii(str(error))[:300]
                parser.exit(2, f"error: {args.policy} cannot be run: {reason}\n")
            decision = dict(zip(outputs, results, strict=True))
            action = decision["greedy_actions"][0]
            if args.sample:
                groups = np.split(decision["probabilities"][0], ends[:-1])
                drawn = [(p.cumsum()[:-1] <= draw(dtype=np.float32)).sum() for p in groups]
                action = np.reshape(drawn, action.shape)
            obs, reward, terminated, truncated, _ = env.step(action)
            state, start = decision.get("next_memory_state", state), False
            returns[episode] += reward
            done = terminated or truncated
        print(f"seed {seed}: return {returns[episode]:,.2f}")
print(f"mean of {args.episodes} episodes: {returns.mean():,.2f}")
