"""One cloud, through openstacksdk: requests in threads, a bounded number at once, again where that is safe; errors in its words."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ...errors import MissingToolError, ProviderError
from ..concurrency import uncut
from .settings import OpenStackSettings

T = TypeVar("T")

CONCURRENCY = 8
"""Requests under way at once: a cloud answers more with 429."""

PAUSES = (0.5, 2.0, 5.0)
"""Before a request is sent again, seconds, where the service does not say how long."""

LONGEST_PAUSE = 60.0
"""That a service is granted by `Retry-After`."""

FRESH = 60.0
"""How long what a cloud offers is taken for what it offers, seconds."""


class Cloud:
    """The services of one cloud, as one of its users."""

    def __init__(self, settings: OpenStackSettings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(CONCURRENCY, "openstack")
        self._gate = threading.Lock()
        self._connection: Any = None
        self._offers: dict[str, tuple[float, list[Any]]] = {}
        self.doubtful = False
        """Whether a request that makes something was ever sent again: what it makes may be there twice."""

    def _connected(self) -> Any:
        """The connection that all threads use, so that there is one token."""
        with self._gate:
            if self._connection is None:
                import openstack

                settings = self._settings
                connection = openstack.connect(cloud=settings.cloud, region_name=settings.region, api_timeout=settings.timeout)
                # else each of the threads asks for a token of its own, and which versions there are
                connection.authorize()
                for service in ("compute", "network"):
                    getattr(connection, service)
                self._connection = connection
            return self._connection

    async def ask(self, resource: str, request: Callable[[Any], T]) -> T:
        """What `request` gives for a connection; it has to be one that may be sent twice.

        resource: what it is about, for errors. Cancelled, it is done all the same: the cloud does what it was asked, heard or not.
        Raises ProviderError.
        """
        for pause in (*PAUSES, None):
            try:
                return await self.once(resource, request)
            except UncertainError as error:
                if pause is None:
                    raise
                await asyncio.sleep(error.pause or pause)
        raise AssertionError

    async def all(self, resource: str, request: Callable[[Any], Iterable[T]]) -> list[T]:
        """As `ask`, of what comes in pages."""
        return await self.ask(resource, lambda connection: list(request(connection)))

    async def flavors(self) -> list[Any]:
        """What servers can be."""
        return await self._offered("flavours", lambda connection: connection.compute.flavors())

    async def images(self) -> list[Any]:
        """What servers can be made from."""
        return await self._offered("images", lambda connection: connection.image.images(status="active"))

    async def outside(self) -> list[Any]:
        """Networks that floating IPs can be had from."""
        # asked for before there are servers, and once they are there, which may take long; others come once in years
        return await self._offered("networks outside", lambda connection: connection.network.networks(is_router_external=True), math.inf)

    async def _offered(self, what: str, request: Callable[[Any], Iterable[Any]], fresh: float = FRESH) -> list[Any]:
        asked, offer = self._offers.get(what, (-math.inf, []))
        if not offer or time.monotonic() - asked >= fresh:
            offer = await self.all(what, request)
            self._offers[what] = time.monotonic(), offer
        return offer

    async def make(self, resource: str, request: Callable[[Any], Any], find: Callable[[Any], Iterable[Any]]) -> Any:
        """As `ask`, of what makes something: before it is sent again, what it may have made all the same is looked for.

        find: lists what is there of it. What a first request makes after the second one was sent may be refused, or be there twice.
        """
        refused: RefusedError | None = None
        for pause in (*PAUSES, None):
            try:
                return await self.once(resource, request)
            except UncertainError as error:
                refused, self.doubtful = error, True
                if pause is None:
                    raise
                await asyncio.sleep(error.pause or pause)
                if found := await self.all(resource, find):
                    return found[0]
            except RefusedError:
                # where there can be but one, the first request's stands in the way of the second
                if refused is not None and (found := await self.all(resource, find)):
                    return found[0]
                raise
        raise AssertionError

    async def gone(self, resource: str, request: Callable[[Any], Any]) -> None:
        """As `ask`, where it is no error that there is nothing."""
        try:
            await self.ask(resource, request)
        except RefusedError as error:
            if error.status != 404:
                raise

    async def once(self, resource: str, request: Callable[[Any], T]) -> T:
        """As `ask`, of what may not be sent again."""
        return await uncut(asyncio.get_running_loop().run_in_executor(self._threads, self._call, resource, request))

    def _call(self, resource: str, request: Callable[[Any], T]) -> T:
        try:
            from keystoneauth1.exceptions import ClientException
            from openstack.exceptions import SDKException
        except ImportError:
            raise MissingToolError("openstacksdk is not installed", remedy="pip install 'wardian[openstack]'") from None
        try:
            connection = self._connected()
            try:
                return request(connection)
            except (SDKException, ClientException) as error:
                # of several threads whose token has expired, keystoneauth lets one alone try again
                if _status(error) != 401:
                    raise
                return request(connection)
        except (SDKException, ClientException) as error:
            raise refusal(resource, error) from error


class RefusedError(ProviderError):
    """A service refused a request. status: that of HTTP, or None where there was no answer."""

    def __init__(self, message: str, *, resource: str, remedy: str | None, status: int | None) -> None:
        super().__init__(message, resource=resource, remedy=remedy)
        self.status = status


class UncertainError(RefusedError):
    """Nobody knows whether it was done, and it may be asked for again. pause: seconds that the service wants to be left alone, or 0."""

    pause = 0.0


def refusal(resource: str, error: Exception) -> RefusedError:
    """A service's refusal as ours: its reason, and the number by which its operators find it."""
    from keystoneauth1.exceptions import ConnectionError, RetriableConnectionFailure
    from openstack.exceptions import ConfigException, ServiceDiscoveryException

    status = _status(error)
    reason = str(getattr(error, "details", None) or error)
    number = getattr(error, "request_id", None)
    text = f"{reason}{f' ({status})' if status else ''}{f'; request {number}' if number else ''}"
    uncertain = (
        isinstance(error, (ConnectionError, RetriableConnectionFailure, ServiceDiscoveryException))
        or status in (408, 429)
        or (status is not None and status >= 500)
    )
    kind = UncertainError if uncertain else RefusedError
    remedy = NO_CLOUD if isinstance(error, ConfigException) else _remedy(status, reason.lower())
    made = kind(text, resource=resource, remedy=remedy, status=status)
    if isinstance(made, UncertainError):
        made.pause = _retry_after(error)
    return made


def _status(error: Exception) -> int | None:
    return getattr(error, "status_code", None) or getattr(error, "http_status", None)


def _retry_after(error: Exception) -> float:
    response = getattr(error, "response", None)
    said = response.headers.get("Retry-After", "") if response is not None else ""
    return min(float(said), LONGEST_PAUSE) if said.isdigit() else 0.0


def _remedy(status: int | None, reason: str) -> str | None:
    if "quota" in reason:
        return "Remove what is not needed (`wardian ls`, `wardian gc`), or ask the site for a larger quota."
    if status == 401:
        return "Check the credentials: clouds.yaml, or the OS_* variables."
    if "no more ip addresses" in reason or "externalipaddressexhausted" in reason:
        return "Its pool is empty: release floating IPs that are not needed, name another network by `external:`, or set `floating: false`."
    if status is None:
        return "Is the cloud's address right, and can it be reached from here?"
    if status >= 500:
        return "The service failed, several times: try again later, or ask the site with the number of the request."
    return None


NO_CLOUD = "Name a cloud of clouds.yaml by `cloud:` or OS_CLOUD, or have the OS_* variables: `source openrc.sh`."
"""What to do where a site's configuration is not to be had."""

NO_HOST = "Choose a smaller flavour, or reserve hosts: the cloud has none free that fits."
"""What to do about a server for which Nova found no valid host."""
