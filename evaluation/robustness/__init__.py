"""How easily a trained policy is fooled: attacks on its pixels, natural shifts, and controls."""
