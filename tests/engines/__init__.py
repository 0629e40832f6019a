"""Tests in front of real vLLM servers: `make test-engines`."""
