"""Groups of settings, one module each; `skylb.config` puts them together."""
