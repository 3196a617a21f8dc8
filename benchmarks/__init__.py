"""Programs that measure this project: `python -m benchmarks.NAME --help`."""
