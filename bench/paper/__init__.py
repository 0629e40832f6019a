"""Simulates the evaluation of the SkyLB paper; see ``python -m bench.paper --help``."""
