"""Replicas and peers that Kubernetes lists.

``api`` asks the API server, ``watch`` keeps the EndpointSlices of a namespace as they are there, ``slices``
says what they mean, and ``source`` offers it as replicas.

The client library is kubernetes_asyncio. It stands on aiohttp, which SkyLB has anyway, and reads every kind
of kubeconfig and credentials. lightkube, the other one that was tried, brings an HTTP stack of its own (eight
distributions) and knows exec credentials only in versions before v1. It imports faster (0.15 s against
0.27 s beside aiohttp); that counts little, because only who asks for Kubernetes imports the library. Lists
and watches are read here, not by the library: it reads answers whole, waits for a silent watch without end,
and asks again with the same version after 410.
"""
