"""This balancer's addresses in DNS, so that clients find the regions that serve and no others."""

from skylb.control.naming.keeper import Keeper, Wish
from skylb.control.naming.make import Naming, make
from skylb.control.naming.provider import DnsError, Provider

__all__ = ["DnsError", "Keeper", "Naming", "Provider", "Wish", "make"]
