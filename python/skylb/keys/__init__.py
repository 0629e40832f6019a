"""API keys of clients and the terms of their tenants: the file, its reader, its editor, its command."""
