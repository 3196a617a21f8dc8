"""What became of an agent: its scores, its replays, and how it compares with others."""
