"""Hand-over: a balancer that runs gives its sockets and what it knows to the one that takes its place."""
