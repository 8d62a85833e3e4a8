"""Hypothesis strategies for everything that an experiment file may hold."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import strategies as st

from wardian.experiment import units
from wardian.experiment.links import BESIDE
from wardian.experiment.model import Experiment

names = st.from_regex(r"[a-z]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True).filter(lambda name: name not in ("all", "here"))
variables = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)

# NUL is refused, and surrogates are no characters
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30) | st.sampled_from(
    [
        "",
        "~",
        "null",
        "true",
        "on",
        "1e3",
        "0755",
        "22:22",
        "<<",
        "=",
        "${x}",
        "$${x}",
        "$$${",
        "a\nb\n",
        "  a\n b",
        "\ta",
        "a: b",
        "# a",
        "- a",
        "a\r\nb",
    ]
)
scripts = texts.filter(str.strip) | st.sampled_from(
    ["set -e\napt-get install -y iperf3\n", 'echo "${HOME}" $${x}', "a\n\n  b\n\n", "x=${y:-z}\n"]
)

durations = st.floats(0, 1e9, allow_nan=False).map(lambda value: units.format_duration(round(value, 9)))
rates = st.integers(1, 10**18).map(units.format_rate)
sizes = st.integers(4 * 2**20, 2**60 - 1).filter(lambda size: size <= 10**18).map(units.format_size)
fractions = st.floats(0, 1).map(units.format_fraction)
queues = (
    st.integers(1, 10**6)
    | st.integers(1, 10**9).map(units.format_size)
    | st.sampled_from(["codel", "pie", {"packets": 9, "discipline": "fq_codel"}, {"bytes": 9000}])
)

numbers = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
settings = st.dictionaries(
    texts,
    st.recursive(
        st.none() | st.booleans() | numbers | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_size=3,
)


mtus = st.fixed_dictionaries({}, optional={"mtu": st.integers(68, 65521)})


def shapes(**more: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """What a link does; each part only beside what it needs."""
    parts = {
        "delay": durations,
        "jitter": durations,
        "distribution": st.sampled_from(["uniform", "normal", "pareto"]),
        "loss": st.floats(0, 0.5).map(units.format_fraction),
        "loss_burst": st.floats(1, 1000),
        "duplicate": fractions,
        "reorder": fractions,
        "rate": rates,
        "queue": queues,
        "trace": st.just("lte.csv") | st.just({"file": "lte.csv", "repeat": False}),
    }
    return st.fixed_dictionaries({}, optional={**parts, **more}).map(_sensible)


def _sensible(shape: dict[str, Any]) -> dict[str, Any]:
    kept = {part: value for part, value in shape.items() if part not in BESIDE or BESIDE[part][0] in shape}
    return kept if len(kept) == len(shape) else _sensible(kept)


@st.composite
def parameters(draw: st.DrawFn) -> Any:
    default = draw(st.booleans() | numbers | texts)
    if draw(st.booleans()):
        return default
    more: dict[str, Any] = {"description": draw(texts)}
    if isinstance(default, int | float) and not isinstance(default, bool) and draw(st.booleans()):
        more |= {"minimum": default, "maximum": default, "choices": [default]}
    return {"default": default, **more}


@st.composite
def nodes(draw: st.DrawFn, networks: list[str], roles: list[str], sites: list[str], address: str | None) -> dict[str, Any]:
    node = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "count": st.integers(0, 5),
                "image": texts,
                "cpus": st.floats(0.01, 100),
                "memory": sizes,
                "env": st.dictionaries(variables, texts, max_size=3),
                "python": st.sampled_from(["python3.12", "/opt/py/bin/python"]),
                "files": st.lists(
                    st.fixed_dictionaries(
                        {"source": texts, "target": names.map(lambda name: f"/{name}")}, optional={"mode": st.just("0755")}
                    ),
                    max_size=3,
                ),
                "setup": scripts,
                "volumes": st.lists(
                    st.fixed_dictionaries({"source": names.map(lambda name: f"./{name}"), "target": names.map(lambda name: f"/{name}")}),
                    max_size=2,
                ),
                "ports": st.lists(st.sampled_from([8080, "80", "53/udp"]), max_size=2),
                "capabilities": st.lists(st.sampled_from(["NET_ADMIN", "cap_sys_time"]), max_size=2),
                "gpus": st.sampled_from([1, "all"]),
                "internet": st.booleans(),
            },
        )
    )
    if roles:
        node["roles"] = draw(st.lists(st.sampled_from(roles), max_size=2, unique=True))
    if sites:
        node["site"] = draw(st.sampled_from(sites))
    if networks:
        joined = draw(st.lists(st.sampled_from(networks), unique=True))
        node["networks"] = {name: {**draw(shapes(up=shapes(), down=shapes())), **draw(mtus)} for name in joined}
        if address and networks[0] in joined and "count" not in node:
            node["networks"][networks[0]]["address"] = address
        node["routes"] = len(joined) > 1 and draw(st.booleans())
    return node


@st.composite
def experiments(draw: st.DrawFn) -> Experiment:
    """Valid experiments, with every field used now and then."""
    words = draw(st.lists(names, min_size=1, max_size=8, unique=True).filter(lambda words: not any("-" in word for word in words)))
    group_names, roles = words[: max(1, len(words) - 2)], words[max(1, len(words) - 2) :]
    networks = draw(st.lists(names, max_size=3, unique=True))
    sites = draw(st.lists(names, max_size=2, unique=True))
    # all of it at one place: networks reach no further
    place = draw(settings)
    subnets = [f"10.{position}.0.0/24" for position in range(len(networks))]
    data: dict[str, Any] = {
        "name": draw(names),
        "description": draw(st.none() | texts),
        "provider": draw(st.sampled_from([*sites, "local"])),
        "parameters": draw(st.dictionaries(variables, parameters(), max_size=3)),
        "sites": {name: {"provider": "local", "settings": place} for name in sites},
        "networks": {
            name: {"subnet": subnet, **draw(st.fixed_dictionaries({}, optional={"delay": durations, "loss": fractions}))}
            for name, subnet in zip(networks, subnets, strict=True)
        },
        "nodes": {
            name: draw(nodes(networks, roles, sites, str(ipaddress.IPv4Address("10.0.0.10") + position)))
            for position, name in enumerate(group_names)
        },
        "services": {
            name: draw(
                st.fixed_dictionaries(
                    {"on": st.sampled_from(["all", *group_names]), "command": scripts | st.lists(scripts, min_size=1, max_size=3)},
                    optional={
                        "env": st.dictionaries(variables, texts, max_size=2),
                        "directory": texts,
                        "ready": st.sampled_from(
                            [{"port": 80}, {"command": "test -e ${x}"}, {"command": ["true"]}, {"log": "listening \\d+"}]
                        ),
                        "restart": st.sampled_from(["no", "always", "on-failure"]),
                    },
                )
            )
            for name in draw(st.lists(names, max_size=2, unique=True))
        },
        "collect": [
            {"on": draw(st.sampled_from(["all", *group_names])), "path": f"/{draw(texts)}"} for _ in range(draw(st.integers(0, 2)))
        ],
        "lease": draw(
            st.none() | st.fixed_dictionaries({"duration": st.just("2h")}, optional={"at_end": st.sampled_from(["down", "keep"])})
        ),
        "replay": draw(st.none() | st.fixed_dictionaries({}, optional={"tolerance": st.just("5%"), "ignore": st.just(["a\\d+", "b"])})),
    }
    if data["provider"] == "local" and "local" not in sites:
        data["settings"] = place
    if len(networks) > 1:
        ends: dict[str, Any] = {"between": networks[:2]}
        if draw(st.booleans()):
            ends = {"among": networks, "delays": "rtt.csv"}
            if draw(st.booleans()):
                ends["delays"] = {name: {other: draw(durations) for other in networks if other != name} for name in networks}
        data["links"] = {"wan": {**ends, **draw(shapes(there=shapes(), back=shapes())), **draw(mtus)}}
    return Experiment.model_validate(data)
