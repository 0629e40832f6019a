"""Real routers and proxies beside SkyLB, in real time over HTTP, in front of the same mock replicas."""
