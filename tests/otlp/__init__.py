"""A real OTLP receiver: `make test-otlp`."""
