"""Real processes for tests: balancers, mock replicas, engines."""
