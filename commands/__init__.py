"""One module for each subcommand of evaluate.py: its options and its `run()`."""
