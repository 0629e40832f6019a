"""A balancer of several processes: one supervisor, one engine process, and workers.

The supervisor binds the sockets and starts the other processes, again where one dies. Workers hold the
connections of clients. The engine process decides, probes, meets peers, and serves operators.
"""
