//! The engine's settings; their defaults are written once, in Python's `config.py`.
