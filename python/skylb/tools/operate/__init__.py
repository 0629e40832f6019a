"""Commands for operators: they ask the admin listener of a running balancer."""
