"""Endpoints for operators, on a listener of their own."""

from skylb.admin.server import Admin, Service

__all__ = ["Admin", "Service"]
