"""Measures pgfanout against other ways to serve the same streams: `python -m benchmarks`, or `make bench`."""
