"""Replicas and peers that Kubernetes lists.

``api`` asks the API server. ``watch`` keeps the EndpointSlices of a namespace as they are there. ``slices``
says what they mean. ``source`` makes replicas of them, and ``peers`` makes peers.

The client library is kubernetes_asyncio. It stands on aiohttp, which SkyLB has anyway, and reads every kind
of kubeconfig and credentials. lightkube, the other one that was tried, brings an HTTP stack of its own (eight
distributions) and knows exec credentials only in versions before v1. It imports faster (0.15 s against
0.27 s beside aiohttp); that counts little, because only who asks for Kubernetes imports the library. Lists
and watches are read here. The library would read answers whole and wait for a silent watch without end, and
after 410 it would ask again with the same version.
"""
