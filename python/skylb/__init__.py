"""SkyLB: a locality-aware, multi-region load balancer for fleets of vLLM replicas."""
