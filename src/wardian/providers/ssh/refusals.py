"""Why a host cannot be used, from what `ssh` says of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from ...errors import ProviderError

if TYPE_CHECKING:
    from .asking import Questions
    from .inventory import Host

Kind = Literal["refused", "silent", "denied"]
"""refused: nothing takes connections there. silent: it does not answer, and may well run. denied: it is there, and refuses us."""

_REFUSED = re.compile(r"Connection refused")
_SILENT = re.compile(
    r"timed out|No route to host|[Uu]nreachable|Could not resolve|Connection (?:closed|reset)|Broken pipe|banner exchange|"
    r"stdio forwarding failed|Connection to .* closed"
)
_CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"


class HostError(ProviderError):
    """A host cannot be used; `kind` says in which way, `begun` whether something may have been done there all the same."""

    def __init__(self, host: str, message: str, *, kind: Kind, remedy: str | None = None, begun: bool = False) -> None:
        super().__init__(message, resource=f"host {host}", remedy=remedy)
        self.host = host
        self.kind = kind
        self.begun = begun
        self.bare = message


def reason(host: Host, said: str, questions: Questions) -> HostError:
    """The error for what `ssh` wrote before it gave up."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "ssh gave no reason"
    if _CHANGED in said:
        return _changed(host, said)
    if questions.shown or "host key is known for" in said:
        return _unknown(host, questions.shown)
    if questions.unanswered:
        message = "it asks for a password, and there is no terminal to ask on"
        if host.password_env:
            message = f"it asks for a password, and the variable {host.password_env} is not set here"
        remedy = "Run `wardian plan` in a terminal first, use a key, or name a variable that holds it by `password_env:`."
        return HostError(host.name, message, kind="denied", remedy=remedy)
    if questions.given and "Permission denied" in last:
        return HostError(host.name, f"it does not take the password of {host.password_env}", kind="denied", remedy="Correct the variable.")
    if _REFUSED.search(said):
        return HostError(host.name, last, kind="refused", remedy="Is its SSH server running, and on this port?")
    if "Permission denied" in last:
        user = f" {host.user}" if host.user else ""
        remedy = f"Try `ssh {host.name}`: what works there works here, with the same key, agent and configuration."
        return HostError(host.name, f"it does not let us in{user and ' as' + user}: {last}", kind="denied", remedy=remedy)
    if _SILENT.search(said):
        through = f" (through {host.jump})" if host.jump else ""
        return HostError(host.name, last + through, kind="silent", remedy="Is it on, and is the network between it and here up?")
    return HostError(host.name, last, kind="denied", remedy=f"Try `ssh {host.name}`.")


def _changed(host: Host, said: str) -> HostError:
    shown = re.search(r"(SHA256:\S+?)\.?\s", said)
    place = re.search(r"Offending (?:\S+ )?key in (\S+?):(\d+)", said)
    file = place[1] if place else host.known_hosts or "~/.ssh/known_hosts"
    where = f" in line {place[2]} of {file}" if place else f" in {file}"
    name = host.address or host.name
    target = f"[{name}]:{host.port}" if host.port not in (0, 22) else name
    message = f"its key is not the one it had: it shows {shown[1] if shown else 'another'}, and that{where} is another"
    remedy = f"If the machine was installed anew: ssh-keygen -f {file} -R '{target}'. If not, somebody may stand between it and you."
    return HostError(host.name, message, kind="denied", remedy=remedy)


def _unknown(host: Host, shown: str | None) -> HostError:
    if shown and host.fingerprint:
        message = f"its key is {shown}, and the settings say {host.fingerprint}"
        return HostError(host.name, message, kind="denied", remedy="Correct `fingerprint:`, if you know that this is the right machine.")
    key = f", {shown}," if shown else ""
    message = f"its key{key} is not known"
    remedy = "Answer the question that `wardian plan` asks in a terminal, name its `fingerprint:`, or set `host_keys: accept-new`."
    return HostError(host.name, message, kind="denied", remedy=remedy)
