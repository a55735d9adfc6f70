"""The load generator and the scenarios behind `make bench`; run it as `python -m benchmarks`."""
