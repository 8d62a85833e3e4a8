"""Which providers there are: those built in, and those that other packages register under the entry point group `wardian.providers`."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..errors import PlanError, ProviderError
from .base import Provider, ProviderSettings

if TYPE_CHECKING:
    from ..experiment.places import Place

BUILT_IN = {
    "local": "wardian.providers.local:LocalProvider",
    "docker": "wardian.providers.docker:DockerProvider",
    "ssh": "wardian.providers.ssh:SshProvider",
    "openstack": "wardian.providers.openstack:OpenStackProvider",
}

SEVERAL = "several sites"
"""The provider of environments that grow at several places, each by its own. No file names it."""


@cache
def _references() -> dict[str, str]:
    return BUILT_IN | {point.name: point.value for point in entry_points(group="wardian.providers")}


def names() -> list[str]:
    """The names that `provider:` may hold."""
    return sorted(_references())


def holders() -> list[str]:
    """All that may hold an environment."""
    return [*names(), SEVERAL]


def nearest_first() -> list[str]:
    """The same, those first whose environments are found with the least work."""
    return [SEVERAL, *_references()]


@cache
def load(name: str) -> type[Provider]:
    """The class of a provider. Raises PlanError, naming those that exist, for an unknown one."""
    reference = "wardian.providers.several:SeveralProvider" if name == SEVERAL else _references().get(name)
    if reference is None:
        near = difflib.get_close_matches(name, names(), 1)
        remedy = f"did you mean {near[0]!r}?" if near else f"write one of: {', '.join(names())}"
        raise PlanError(f"there is no provider {name!r}", remedy=remedy)
    module, _, attribute = reference.partition(":")
    provider: type[Provider] = getattr(importlib.import_module(module), attribute)
    return provider


def settings_models() -> Mapping[str, type[ProviderSettings]]:
    """{provider name: model of its settings}, for checking experiment files and for their schema. One is loaded when it is asked for."""
    return _SettingsModels()


class _SettingsModels(Mapping[str, type[ProviderSettings]]):
    def __getitem__(self, name: str) -> type[ProviderSettings]:
        if name not in _references():
            raise KeyError(name)
        return load(name).Settings

    def __iter__(self) -> Iterator[str]:
        return iter(names())

    def __len__(self) -> int:
        return len(_references())

    def __contains__(self, name: object) -> bool:
        return name in _references()


def make(name: str, settings: Mapping[str, Any] | None = None) -> Provider:
    """A provider with these settings. Raises PlanError for an unknown provider or settings that it refuses."""
    provider = load(name)
    try:
        return provider(provider.Settings.model_validate(dict(settings or {})))
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        remedy = f"its settings are: {', '.join(sorted(provider.Settings.model_fields))}"
        raise PlanError(f"provider {name} refuses its settings: {said}", remedy=remedy) from error


@contextmanager
def as_grown(environment: str) -> Iterator[None]:
    """Settings that an environment was grown with are taken up within. Raises ProviderError where a newer Wardian wrote them."""
    try:
        yield
    except (PlanError, ValidationError) as error:
        refused = error if isinstance(error, ValidationError) else error.__cause__
        if not isinstance(refused, ValidationError):
            raise
        unknown = ", ".join(
            ".".join(map(str, item["loc"])) + ("" if item["type"] == "extra_forbidden" else f": {item['input']!r}")
            for item in refused.errors()
        )
        raise ProviderError(
            f"a newer Wardian grew it, with settings that this one ({version('wardian')}) does not know: {unknown}",
            resource=f"environment {environment}",
            remedy="Use that Wardian for it, or upgrade this one: pip install --upgrade wardian.",
        ) from error


def make_at(places: Sequence[Place]) -> Provider:
    """The provider of a place; of several, one that hands each resource to that of its site. Raises as `make`."""
    if len(places) == 1:
        return make(places[0].provider, places[0].settings)
    return make(SEVERAL, {"sites": {place.name: {"provider": place.provider, "settings": place.settings} for place in places}})
