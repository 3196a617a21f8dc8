"""What is on disk: files, run folders, policies, checkpoints, recordings."""
