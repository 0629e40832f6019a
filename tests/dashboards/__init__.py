"""Dashboards and alerts against what balancers really show."""
