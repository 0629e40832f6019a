"""Faults for minutes, with times: figures, not tests."""
