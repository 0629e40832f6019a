"""SkyLB: a load balancer for fleets of vLLM and SGLang replicas in several regions."""
