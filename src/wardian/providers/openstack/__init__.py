"""The provider `openstack`: nodes that are servers of a cloud."""

from .provider import OpenStackProvider
from .settings import OpenStackSettings

__all__ = ["OpenStackProvider", "OpenStackSettings"]
