"""Where replicas are: flags, a file, DNS, a dead peer. `sources` has the table of all."""
