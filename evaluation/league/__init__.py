"""A league: policies that play against each other, and their ratings."""
