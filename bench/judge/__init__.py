"""Judges policies by simulation; see ``python -m bench.judge --help``."""
