"""What a trained policy looks at, what changes its mind, and what it knows, each with controls."""
