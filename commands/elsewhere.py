"""Names that the options have in other programs, to suggest ours."""

from __future__ import annotations

from collections.abc import Collection

_NAMES = {
    "rollout-length": "n-steps num-steps unroll-length rollout rollout-steps",
    "minibatch-size": "batch-size",
    "num-epochs": "n-epochs update-epochs ppo-epochs",
    "learning-rate": "lr alpha step-size",
    "anneal-learning-rate": "anneal-lr lr-schedule",
    "gamma": "discount discount-factor",
    "gae-lambda": "lam gae",
    "clip-coef": "clip-range clip-ratio ppo-clip-ratio eps-clip clip",
    "value-clip-coef": "clip-range-vf ppo-clip-value clip-vloss",
    "normalize-advantages": "normalize-advantage norm-adv",
    "entropy-coef": "ent-coef exploration-loss-coeff entropy entropy-coeff",
    "value-coef": "vf-coef value-loss-coeff vf-loss-coeff",
    "max-grad-norm": "grad-clip clip-grad-norm",
    "total-env-steps": "total-timesteps timesteps n-timesteps train-for-env-steps steps max-steps",
    "num-envs": "n-envs env-count",
    "num-workers": "n-workers workers n-jobs",
    "num-groups": "worker-num-splits",
    "overlap": "async-rl",
    "memory": "use-rnn rnn-type use-lstm lstm",
    "memory-size": "rnn-size lstm-size hidden-size",
    "encoder": "encoder-conv-architecture policy",
    "hidden-sizes": "encoder-mlp-layers net-arch",
    "normalize-obs": "normalize-input",
    "frame-skip": "env-frameskip frameskip action-repeat",
    "frame-stack": "env-framestack framestack n-stack",
    "run-dir": "experiment train-dir exp-name log-dir logdir tensorboard-log save-dir output-dir",
    "eval-every": "eval-freq eval-interval",
    "eval-episodes": "n-eval-episodes",
    "checkpoint-every-s": "save-every-sec save-freq",
    "agent": "algo algorithm",
    "episodes": "n-episodes num-episodes n-eval-episodes max-num-episodes",
    "greedy": "deterministic",
    "out": "output output-dir output-folder save-path",
}
"""The names of each option in Stable-Baselines3, Sample Factory, CleanRL and others."""


def flag_for(option: str, flags: Collection[str]) -> str | None:
    """Return the option that is meant by a name from elsewhere, or by initials as in `--lr`.

    Args:
        option: an unknown option, as in `--lr`.
        flags: the options that there are.
    """
    name = option.lstrip("-").replace("_", "-").lower()
    for ours, theirs in _NAMES.items():
        if f"--{ours}" in flags and (name == ours or name in theirs.split()):
            return f"--{ours}"
    initials = [
        flag
        for flag in flags
        if len(name) > 1 and name == "".join(w[:1] for w in flag.strip("-").split("-"))
    ]
    return initials[0] if len(initials) == 1 else None
