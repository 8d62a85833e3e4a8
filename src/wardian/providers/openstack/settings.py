"""What `settings:` may hold for `openstack`."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ...experiment.fields import Duration
from ..base import ProviderSettings
from ..ssh.settings import Plain
from .reserve import Rates, Reserve


def _network(value: str) -> str:
    return str(IPv4Network(value))


class OpenStackSettings(ProviderSettings):
    """One site: which cloud, what its servers are, and how they are reached."""

    cloud: str | None = Field(default=None, description="a cloud of clouds.yaml; without it OS_CLOUD, or the OS_* variables")
    region: str | None = Field(default=None, description="region, where the cloud has several")
    image: str | None = Field(
        default=None, description="image of nodes that name none: its name, id, or properties (os_distro=debian,…); the newest that fits"
    )
    flavor: str | None = Field(default=None, description="flavour; without it the smallest that has a node's cpus and memory")
    flavors: dict[str, str] = Field(default={}, description="{node, group or role: flavour}, before `flavor`")
    disk: int = Field(default=0, ge=0, description="GiB of disk that a flavour has at least, where none is named")
    user: Plain = Field(default="root", description="who to log in as")
    bastion: str | None = Field(default=None, description="the node that has the floating IP; without it the first")
    external: str | None = Field(default=None, description="network that floating IPs come from, where the cloud has several")
    access: str | None = Field(default=None, description="network of the cloud by which servers are reached, in place of one that is made")
    floating: bool = Field(default=True, description="whether the bastion has a floating IP; false: nodes are reached as from within")
    admit: list[Annotated[str, AfterValidator(_network)]] = Field(
        default=["0.0.0.0/0"], description="who may reach the bastion's SSH server"
    )
    ready: Literal["ssh", "active"] = Field(
        default="ssh", description="when a node is ready: SSH answers and cloud-init is done, or as soon as its server is ACTIVE"
    )
    patience: Duration = Field(default=900.0, description="longest that a server may take until it is ready")
    timeout: Duration = Field(default=60.0, description="longest that one request may take")
    reserve: Reserve | None = Field(default=None, description="what the site's reservation service is to hold (Blazar)")
    rates: Rates | None = Field(default=None, description="what the site charges, for the plan")
    ssh: str = Field(default="ssh", description="the OpenSSH client: a program's name or path")
