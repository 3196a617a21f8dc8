"""Other targets of the critic, tried and not adopted: modules for `--import`, each of which is PPO.

`python -m benchmarks.settings values` compares them.
"""
