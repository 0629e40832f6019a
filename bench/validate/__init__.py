"""How far the simulator can be believed: against mock replicas in real time, and against a real vLLM."""
