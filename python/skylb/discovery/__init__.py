"""Where replicas come from: flags, a file, DNS. Each source offers the whole set that it wants."""

from skylb.discovery.dns import DnsSource
from skylb.discovery.file import FileSource
from skylb.discovery.named import NamedSource

__all__ = ["DnsSource", "FileSource", "NamedSource"]
