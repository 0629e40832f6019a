"""Where replicas come from: flags, a file, DNS. Each source offers the whole set that it wants."""

from skylb.control.discovery.dns import DnsSource
from skylb.control.discovery.file import FileSource
from skylb.control.discovery.named import NamedSource

__all__ = ["DnsSource", "FileSource", "NamedSource"]
