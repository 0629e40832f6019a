"""For all tests: they open a thousand connections at once, whatever the shell's soft limit is."""

from skylb.descriptors import raise_limit

raise_limit()
