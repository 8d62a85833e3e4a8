"""The provider `openstack`: nodes that are servers of a cloud."""

from .leased import LeasedProvider as OpenStackProvider
from .settings import OpenStackSettings

__all__ = ["OpenStackProvider", "OpenStackSettings"]
