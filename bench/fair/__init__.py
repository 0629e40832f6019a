"""``make bench-fair``: what nine tenants notice of a tenth that floods, simulated."""
