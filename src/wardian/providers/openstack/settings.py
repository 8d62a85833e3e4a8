"""What `settings:` may hold for `openstack`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ...experiment.fields import Duration
from ..base import ProviderSettings


class OpenStackSettings(ProviderSettings):
    """One site: which cloud, and what its servers are."""

    cloud: str | None = Field(default=None, description="a cloud of clouds.yaml; without it OS_CLOUD, or the OS_* variables")
    region: str | None = Field(default=None, description="region, where the cloud has several")
    image: str | None = Field(default=None, description="image of nodes that name none: a name (the newest of it) or an id")
    flavor: str | None = Field(default=None, description="flavour; without it the smallest that has a node's cpus and memory")
    ready: Literal["active"] = Field(default="active", description="when a node counts as ready: once its server is ACTIVE")
    patience: Duration = Field(default=600.0, description="longest that a server may take until it is ready")
