"""Commands that are not the balancer: mock replicas, load, simulations, slow links and the demo."""
