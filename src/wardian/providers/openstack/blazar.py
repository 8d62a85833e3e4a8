"""Blazar's own interface, version 1, through openstacksdk's session: leases, and who holds which host.

A request that changes something is sent once: of one that failed without a word from the service, `leases` looks what became of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import ProviderError
from .calendar import Period
from .cloud import Cloud, RefusedError, UncertainError
from .reserve import minute

ANSWER = 150.0
"""Longest wait for an answer, seconds: Blazar makes a lease while one waits."""

SCARCE = ("not enough", "no enough")
"""How Blazar says that others hold what is asked for, which it does with a 500."""

UNSUPPORTED = "resource type is not supported"
"""How Blazar says that it reserves nothing of the kind, with a 500, too."""

HEADERS = {"Accept": "application/json"}


class ScarceError(RefusedError):
    """Others hold what was asked for."""


class HiddenError(RefusedError):
    """The site does not show this to its users."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One lease as Blazar tells of it. start, end: minutes since the epoch."""

    id: str
    name: str
    status: str
    start: int
    end: int
    created: str
    reservations: tuple[Mapping[str, Any], ...]
    events: tuple[Mapping[str, Any], ...]

    @staticmethod
    def read(said: Mapping[str, Any]) -> Lease:
        """From a service's answer."""
        start, end = minute(said["start_date"]), minute(said["end_date"])
        created = str(said.get("created_at") or "")
        return Lease(
            said["id"], said["name"], said["status"], start, end, created, tuple(said["reservations"]), tuple(said.get("events") or ())
        )

    def trouble(self) -> str:
        """What Blazar tells of a lease in ERROR, which is not why."""
        failed = [f"{item['event_type']} failed" for item in self.events if item.get("status") == "ERROR"]
        failed += [f"a reservation of {item['resource_type']} is in error" for item in self.reservations if item.get("status") == "error"]
        failed += [f"a reservation of {item['resource_type']} lacks hosts" for item in self.reservations if item.get("missing_resources")]
        return "; ".join(dict.fromkeys(failed)) or "Blazar does not say why"


class Blazar:
    """The reservation service of one cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def there(self) -> bool:
        """Whether the cloud has one."""
        return bool(await self._cloud.ask("the catalogue", lambda connection: _client(connection).get_endpoint()))

    async def leases(self, name: str) -> list[Lease]:
        """The project's leases of this name, the oldest first: Blazar allows several."""
        found = (await self._call("leases", "GET", "/leases"))["leases"]
        return sorted((Lease.read(item) for item in found if item["name"] == name), key=lambda item: (item.created, item.id))

    async def create(self, about: str, wanted: Mapping[str, Any]) -> Lease:
        """Make a lease."""
        return Lease.read((await self._call(about, "POST", "/leases", wanted))["lease"])

    async def update(self, about: str, lease: str, changes: Mapping[str, Any]) -> None:
        """Change a lease."""
        await self._call(about, "PUT", f"/leases/{lease}", changes)

    async def delete(self, about: str, lease: str) -> None:
        """End a lease, and all that is in it. One that is gone is no error."""
        await self._call(about, "DELETE", f"/leases/{lease}", gone=True)

    async def hosts(self) -> list[dict[str, Any]]:
        """All hosts that may be reserved, with their properties. Many sites do not show them to their users."""
        found: list[dict[str, Any]] = (await self._call("hosts", "GET", "/os-hosts"))["hosts"]
        return [host for host in found if host.get("reservable", True)]

    async def allocations(self) -> dict[str, list[tuple[str, Period]]]:
        """{host's id: the leases that hold it, and when}."""
        found = (await self._call("allocations", "GET", "/os-hosts/allocations"))["allocations"]
        return {
            str(item["resource_id"]): [
                (held["lease_id"], (minute(held["start_date"]), minute(held["end_date"]))) for held in item["reservations"]
            ]
            for item in found
        }

    async def _call(self, about: str, method: str, path: str, body: Mapping[str, Any] | None = None, *, gone: bool = False) -> Any:
        from keystoneauth1.exceptions import EndpointNotFound

        def request(connection: Any) -> Any:
            # a request that is repeated behind our back could make a second lease
            options = {"raise_exc": False, "timeout": ANSWER, "connect_retries": 0, "status_code_retries": 0, "headers": HEADERS}
            if body is not None:
                options["json"] = dict(body)
            try:
                answer = _client(connection).request(path, method, **options)
            except EndpointNotFound as error:
                remedy = "Leave out `reserve`, and the environment holds servers that are not reserved."
                raise ProviderError("this cloud has no reservation service", resource=about, remedy=remedy) from error
            if answer.status_code >= 400 and not (gone and answer.status_code == 404):
                raise _refused(about, answer)
            return answer.json() if answer.content and answer.status_code < 400 else None

        if method == "GET":
            return await self._cloud.ask(about, request)
        return await self._cloud.once(about, request)


def _client(connection: Any) -> Any:
    """openstacksdk has no class for this service; its session and configuration do."""
    from keystoneauth1.adapter import Adapter

    service, config = "reservation", connection.config
    return Adapter(
        connection.session,
        service,
        interface=config.get_interface(service),
        region_name=config.get_region_name(service),
        endpoint_override=config.get_endpoint(service),
    )


def _refused(about: str, answer: Any) -> RefusedError:
    try:
        said = answer.json()
        reason = str(said.get("error_message") or said)
    except ValueError:
        reason = (answer.text or answer.reason or "").strip()[:300]
    number = answer.headers.get("x-openstack-request-id")
    text = f"{reason} ({answer.status_code}){f'; request {number}' if number else ''}"
    kind: type[RefusedError] = RefusedError
    remedy: str | None = None
    if any(words in reason.lower() for words in SCARCE):
        kind = ScarceError
    elif answer.status_code == 403:
        kind = HiddenError
    elif UNSUPPORTED in reason.lower():
        remedy = "Leave it out of `reserve`: this site's reservation service has no such thing."
    elif answer.status_code >= 500:
        kind, remedy = UncertainError, "The service failed: run the command again, or ask the site with the number of the request."
    return kind(text, resource=about, remedy=remedy, status=answer.status_code)


def reservation_of(lease: Lease, wanted: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A lease's reservations in the order of `wanted`, which are as the request had them.

    The service keeps no order, and of networks Chameleon's tells no more than that they are some.
    """
    left = list(lease.reservations)
    result = []
    for item in wanted:
        found = next((one for one in left if all(_same(one[key], value) for key, value in item.items() if key in one)), None)
        if found is None:
            raise ProviderError(f"its lease has no reservation of {item['resource_type']} as asked for", resource=f"lease {lease.name}")
        left.remove(found)
        result.append(found)
    return result


def _same(have: Any, value: Any) -> bool:
    return value is None or str(have) == str(value)
