"""Command lines of other routers: what each of their flags becomes here."""
