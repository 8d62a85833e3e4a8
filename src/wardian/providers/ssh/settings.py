"""What `settings:` may hold for `ssh`, and the file may say of one host."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ...experiment.fields import Duration, Variable
from ..base import ProviderSettings


def _list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _plain(value: str) -> str:
    """What begins with a dash would be an option to `ssh`, and what holds a space or control character is no name of anything."""
    if not value or value.startswith("-") or not value.isprintable() or any(character.isspace() for character in value):
        raise ValueError("a name without spaces that does not begin with a dash")
    return value


Plain = Annotated[str, AfterValidator(_plain)]
Labels = Annotated[list[str], BeforeValidator(_list)]


class HostSettings(BaseModel):
    """One machine. What is not said here is as `~/.ssh/config` says for its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Plain = Field(description="its name: an alias of ~/.ssh/config, a host name or an address")
    address: Plain | None = Field(default=None, description="where SSH connects to, if not to the name")
    user: Plain | None = Field(default=None, description="who to log in as")
    port: int | None = Field(default=None, ge=1, le=65535, description="port of its SSH server")
    key: Path | None = Field(default=None, description="file of the private key; without it ssh tries the agent and the usual files")
    jump: Plain | None = Field(default=None, description="bastion to go through, [user@]host[:port], several with commas between")
    labels: Labels = Field(default=[], description="words that `place` picks it by")
    python: str | None = Field(default=None, description="interpreter of Python cells there, where a node names none")
    password_env: Variable | None = Field(default=None, description="environment variable here that holds the password")
    fingerprint: str | None = Field(default=None, pattern=r"^SHA256:[A-Za-z0-9+/]{43}$", description="of its host key, for the first visit")


def _host(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class SshSettings(ProviderSettings):
    """What `settings:` may hold for `ssh`."""

    hosts: list[Annotated[HostSettings, BeforeValidator(_host)]] = Field(default=[], description="machines: names, or mappings")
    inventory: Path | None = Field(default=None, description="Ansible inventory (INI or YAML) with more of them")
    place: dict[str, Labels] = Field(
        default={}, description="{node, group or role: labels, inventory groups or names of the hosts it may be on}"
    )
    shared: bool = Field(default=False, description="whether other environments may be on the same hosts")
    host_keys: Literal["ask", "accept-new", "known"] = Field(
        default="ask", description="a host not seen before: ask, accept-new (take its key), known (refuse)"
    )
    key_exchange: Literal["ssh", "classic"] = Field(
        default="ssh",
        description="ssh: as the client chooses; classic: curve25519 first, which is several times as quick as the "
        "post-quantum exchange of OpenSSH 9.0 to 9.8",
    )
    known_hosts: Path | None = Field(default=None, description="file of host keys in place of ~/.ssh/known_hosts")
    config: Path | None = Field(default=None, description="configuration file of ssh in place of ~/.ssh/config")
    ssh: str = Field(default="ssh", description="the OpenSSH client: a program's name or path")
    patience: Duration = Field(default=15.0, description="silence after which a connection counts as lost")
