"""What a request costs: SkyLB beside HAProxy and the Rust routers, in one run, as ratios."""
