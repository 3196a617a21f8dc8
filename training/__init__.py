"""What surrounds the loop of a training run."""
