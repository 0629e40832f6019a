"""The control plane: finds replicas, measures their load, and writes facts into the router."""

from skylb.control.plane import Control

__all__ = ["Control"]
