"""The provider `ssh`: machines that are there already, reached by the user's own OpenSSH."""

from __future__ import annotations

from .provider import SshProvider
from .settings import HostSettings, SshSettings

__all__ = ["HostSettings", "SshProvider", "SshSettings"]
