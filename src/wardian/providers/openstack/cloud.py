"""One cloud, through openstacksdk: requests in threads, a bounded number at once, errors in the service's own words."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ...errors import MissingToolError, ProviderError
from .settings import OpenStackSettings

T = TypeVar("T")

CONCURRENCY = 8
"""Requests under way at once: a cloud answers more with 429."""

LIMIT = 300.0
"""Longest that one request may take, seconds."""


class Cloud:
    """The services of one cloud, as one of its users."""

    def __init__(self, settings: OpenStackSettings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(CONCURRENCY, "openstack")

    @functools.cached_property
    def _connection(self) -> Any:
        try:
            import openstack
        except ImportError:
            raise MissingToolError("openstacksdk is not installed", remedy="pip install 'wardian[openstack]'") from None
        return openstack.connect(cloud=self._settings.cloud, region_name=self._settings.region, api_timeout=LIMIT)

    async def ask(self, resource: str, request: Callable[[Any], T]) -> T:
        """Do what `request` does with a connection. Cancelled, it is done all the same: the cloud does what it was asked, heard or not.

        resource: what it is about, for errors. Raises ProviderError.
        """
        loop = asyncio.get_running_loop()
        asked = loop.run_in_executor(self._threads, self._call, resource, request)
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            await asyncio.gather(asked, return_exceptions=True)
            raise

    async def all(self, resource: str, request: Callable[[Any], Iterable[T]]) -> list[T]:
        """As `ask`, of what comes in pages."""
        return await self.ask(resource, lambda connection: list(request(connection)))

    async def gone(self, resource: str, request: Callable[[Any], Any]) -> None:
        """As `ask`, where it is no error that there is nothing."""
        from openstack.exceptions import NotFoundException

        def ignoring(connection: Any) -> None:
            try:
                request(connection)
            except NotFoundException:
                return

        await self.ask(resource, ignoring)

    def _call(self, resource: str, request: Callable[[Any], T]) -> T:
        connection = self._connection
        from keystoneauth1.exceptions import ClientException
        from openstack.exceptions import SDKException

        try:
            return request(connection)
        except (SDKException, ClientException) as error:
            raise refusal(resource, error) from error


def refusal(resource: str, error: Exception) -> ProviderError:
    """A service's refusal as ours: its reason, and the number by which its operators find it."""
    status = getattr(error, "status_code", None) or getattr(error, "http_status", None)
    reason = getattr(error, "details", None) or str(error)
    number = getattr(error, "request_id", None)
    text = f"{reason}{f' ({status})' if status else ''}{f'; request {number}' if number else ''}"
    return ProviderError(text, resource=resource, remedy=_remedy(status, str(reason)))


def _remedy(status: int | None, reason: str) -> str | None:
    lowered = reason.lower()
    if "quota" in lowered:
        return "Remove what is not needed (`wardian ls`, `wardian gc`), or ask the site for a larger quota."
    if status == 401:
        return "Check the credentials: clouds.yaml, or the OS_* variables."
    if "no valid host" in lowered:
        return "Choose a smaller flavour, or reserve hosts."
    if status is not None and status >= 500:
        return "The service failed; run the command again, or ask the site with the number of the request."
    return None
