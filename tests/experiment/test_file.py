# ruff: noqa: E501 (tables of cases, one a line)
"""The experiment file: what is read, every kind of problem with its place, and that what is written reads back."""

from __future__ import annotations

import sys
from contextlib import suppress
from textwrap import dedent

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from wardian.errors import ExperimentFileError, Problem
from wardian.experiment import file
from wardian.experiment.model import Experiment, FileCopy, Node
from wardian.experiment.templates import ORDER, read

from .strategies import experiments


class LocalSettings(BaseModel):
    """What a provider's settings may look like."""

    model_config = ConfigDict(extra="forbid")
    cgroups: bool = True
    relays: int = 2


PROVIDERS = {"local": LocalSettings}


def loads(text: str, **more: object) -> Experiment:
    """The experiment of a short text; a name and a node are there already."""
    text = dedent(text)
    text = text if "name:" in text.split("\n")[0] else f"name: demo\n{text}"
    return file.loads(text if "\nnodes:" in text else f"{text}\nnodes: {{box: }}\n", **more)  # type: ignore[arg-type]


def problems(text: str | bytes, **more: object) -> list[Problem]:
    """What is wrong with a text."""
    with pytest.raises(ExperimentFileError) as caught:
        file.loads(dedent(text) if isinstance(text, str) else text, **more)  # type: ignore[arg-type]
    found = caught.value.problems
    assert found == sorted(found, key=lambda problem: (problem.line or 0, problem.column or 0))
    return found


def only(text: str, **more: object) -> Problem:
    """The one problem of a text that has a name and nodes."""
    (problem,) = problems(text, **more)
    return problem


WHOLE = """\
name: whole
description: Every field there is
provider: lab
parameters:
  clients: 3
  delay: {default: 30ms, description: one way}
  rate: {type: number, default: 10, minimum: 1, maximum: 100, choices: [1, 10, 100]}
sites:
  lab:
    provider: local
    settings: {cgroups: no, relays: 3}
networks:
  west: {subnet: 10.1.0.0/24, delay: 1ms, loss: 0.1%, mtu: 9000}
  east:
links:
  wan:
    between: [west, east]
    delay: ${delay}
    loss: 0.05%
    rate: ${rate}mbit
    queue: 100
    there: {rate: 5mbit, queue: 64KiB}
    back: {delay: 10ms, jitter: 2ms, distribution: pareto, loss_burst: 4, duplicate: 1%, reorder: 0.1}
    mtu: 1400
nodes:
  client:
    count: ${clients}
    roles: user
    image: debian:12
    cpus: 0.5
    memory: 512MiB
    env: {LEVEL: 3, DEBUG: true, VERSION: 1.10}
    files: {play.py: /srv/play.py}
    setup: |
      echo ${HOME} ${clients} $${clients}
    internet: yes
    networks: [west]
    site: lab
  router:
    routes: true
    networks:
      west: {address: 10.1.0.9, delay: 1ms, up: {rate: 1gbit, queue: codel}, down: {loss: 1%, trace: lte.csv}}
      east: {queue: 10, rate: 1mbit}
  server:
    networks: east
    files: [{source: serve.py, target: /srv/serve.py, mode: 0755}]
services:
  web:
    on: server
    command: [python3, -m, http.server, 8000]
    env: {A: b}
    directory: /srv
    ready: {port: 8000, timeout: 5s}
    restart: no
  check:
    on: user
    command: sleep 1
    ready: {command: test -e /tmp/x}
collect:
  - /tmp/results
  - {on: "client[0]", path: /var/log/*.log}
lease: {duration: 1h30m, at_end: keep}
"""


def test_every_field_is_read() -> None:
    """A file with every field gives an experiment with every value in its plain unit."""
    made = file.loads(WHOLE, providers=PROVIDERS)
    assert (made.name, made.description, made.provider) == ("whole", "Every field there is", "lab")
    assert made.sites["lab"].settings == {"cgroups": "no", "relays": 3}
    assert made.networks["west"].model_dump() | {"subnet": None} == {"subnet": None, "delay": 0.001, "loss": 0.001, "mtu": 9000}
    there, back = made.links["wan"].directions()
    assert there == {"delay": 0.03, "loss": 0.0005, "rate": 5 * 10**6, "queue": {"bytes": 65536}}
    assert back == {
        "delay": 0.01, "jitter": 0.002, "distribution": "pareto", "loss": 0.0005, "loss_burst": 4.0, "duplicate": 0.01, "reorder": 0.1,
        "rate": 10**7, "queue": {"packets": 100},
    }  # fmt: skip
    assert made.links["wan"].mtu == 1400
    client, router, server = (made.nodes[name] for name in ("client", "router", "server"))
    assert (client.count, client.roles, client.image, client.cpus, client.memory) == (3, ["user"], "debian:12", 0.5, 2**29)
    assert client.env == {"LEVEL": "3", "DEBUG": "true", "VERSION": "1.10"}
    assert client.files == [FileCopy(source="play.py", target="/srv/play.py")]
    assert client.setup == "echo ${HOME} 3 ${clients}\n"
    assert client.internet
    assert router.networks is not None
    up, down = router.networks["west"].directions()
    assert up == {"delay": 0.001, "rate": 10**9, "queue": {"discipline": "codel"}}
    assert down == {"delay": 0.001, "loss": 0.01, "trace": {"file": "lte.csv"}}
    assert list(server.networks or ()) == ["east"]
    assert server.files[0].mode == "0755"
    assert made.services["web"].command == ["python3", "-m", "http.server", "8000"]
    assert made.services["web"].restart == "no"
    assert made.services["check"].ready is not None
    assert made.services["check"].ready.command == ["/bin/sh", "-c", "test -e /tmp/x"]
    assert [(item.on, item.path) for item in made.collect] == [("all", "/tmp/results"), ("client[0]", "/var/log/*.log")]
    assert made.lease is not None
    assert (made.lease.duration, made.lease.at_end) == (5400, "keep")


@pytest.mark.parametrize("template", ORDER)
def test_templates_are_read_and_written(template: str) -> None:
    """Each template of `wardian init` loads under another name, and reads back once written."""
    made = file.loads(read(template, "mine"), template)
    assert made.name == "mine"
    assert file.loads(file.dumps(made)) == made


def test_a_written_file_is_what_a_person_would_write() -> None:
    """Written text has human units and short forms, and leaves out what is the default."""
    made = loads(
        """\
        networks: {lan: {subnet: 10.1.0.0/24}, wan: }
        links: {up: {between: [lan, wan], delay: 0.03s, rate: 100000kbit, queue: 100}}
        nodes:
          client: {count: 2, networks: [lan], memory: 2097152KiB, files: {a: /a}, setup: "echo ${HOME}\\nls\\n", cpus: 1.0}
          server: {networks: {wan: {up: {rate: 1mbit, queue: 65536B}}}, env: {DEBUG: "on"}}
        services: {web: {on: "client[0]", command: sleep 5, restart: on-failure}}
        collect: [/tmp]
        """
    )
    assert file.dumps(made) == dedent(
        """\
        name: demo
        networks:
          lan:
            subnet: 10.1.0.0/24
          wan: {}
        links:
          up:
            between: [lan, wan]
            delay: 30ms
            rate: 100mbit
            queue: 100
        nodes:
          client:
            count: 2
            cpus: 1
            memory: 2GiB
            files:
              a: /a
            setup: |
              echo ${HOME}
              ls
            networks: [lan]
          server:
            env:
              DEBUG: on
            networks:
              wan:
                up:
                  rate: 1mbit
                  queue: 64KiB
        services:
          web:
            on: client[0]
            command: sleep 5
        collect: [/tmp]
        """
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(experiments())
def test_experiments_read_back(made: Experiment) -> None:
    """Any valid experiment, written as text, reads back equal, with its values' types."""
    again = file.loads(file.dumps(made))
    assert again == made
    assert repr(again) == repr(made)


# YAML


def test_scalars_are_those_of_yaml_1_2() -> None:
    """`on`, `no`, `22:22` and 0755 stay text; only null, true, false and numbers are anything else."""
    made = loads(
        """\
        settings: {a: on, b: no, c: 22:22, d: 0755, e: 1e3, f: 0x10, g: ~, h: "5", i: -7, j: .5, k: TRUE, l: !!str 5, m: !!float 5, n: 2020-01-01}
        """
    )
    assert made.settings == {
        "a": "on", "b": "no", "c": "22:22", "d": "0755", "e": 1000.0, "f": "0x10", "g": None, "h": "5", "i": -7, "j": 0.5, "k": True,
        "l": "5", "m": 5.0, "n": "2020-01-01"}  # fmt: skip


def test_anchors_and_merge_keys_are_followed() -> None:
    """An alias repeats its anchor, a merge key lays what is written over what is merged."""
    made = loads(
        """\
        networks: [a, b]
        nodes:
          first: &first {cpus: 1, env: {A: b}, networks: &both {a: &slow {delay: 1s}, b: *slow}}
          second: {<<: *first, cpus: 2}
          third: {<<: [{cpus: 3}, *first], networks: *both}
        """
    )
    assert [node.cpus for node in made.nodes.values()] == [1, 2, 3]
    assert made.nodes["second"].env == {"A": "b"}
    assert made.nodes["third"].networks == made.nodes["first"].networks


def test_empty_sections_count_as_not_written() -> None:
    """A section whose entries are all commented out is no error."""
    assert loads("services:\nlinks:\nlease:\nprovider:\n") == loads("")


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        (b"", 1, 1, "the file is empty"),
        (b"# nothing\n", 1, 1, "the file is empty"),
        (b"\xff\xfen\x00", 1, 1, "not a text file in UTF-8"),
        (b"name: x\n# \xe9", 2, 3, "not a text file in UTF-8"),
        (b"\x7fELF\x02\x01\x01\x00", 1, 1, "not a text file"),
        ("name: x\nnodes: \x00", 2, 8, "not a text file"),
        ("name: \ud800", 1, 7, "not a text file"),
        ("- a\n- b", 1, 1, "not an experiment file"),
        ("just words", 1, 1, "not an experiment file"),
        ("name: x\nnodes:\n\tbox:\n", 3, 1, "a tab where only spaces may indent"),
        ("name: x\nnodes: {box: {", 3, 1, "not valid YAML"),
        ("name: x\nlinks: {a: b: c}", 2, 13, "not valid YAML"),
        ("name: 'x", 1, 9, "not valid YAML"),
        ("name: x\n---\nname: y\n", 2, 1, "a second document"),
        ("[" * 200_000, None, None, "lists and mappings more than 40 deep"),
        ("? " * 5000, 1, 83, "lists and mappings more than 40 deep"),
        ("- " * 5000, 1, 83, "lists and mappings more than 40 deep"),
        ("a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2000)), None, None, "deep inside each other"),
        ("a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)), 1, 1, "aliases (*) expand to more"),
        (
            "a: &a {" + ", ".join(f"k{i}: 1" for i in range(2000)) + "}\n" + "b:\n" + "".join("  - {<<: [*a, *a, *a, *a]}\n" for i in range(200)),
            None, None, "merge keys (<<) expand to more",
        ),
        ("name: " + "x" * (5 * 2**20), 1, 1, "the file is too long"),
    ],
)  # fmt: skip
def test_what_is_no_experiment_file_is_one_clear_problem(text: str | bytes, line: int | None, column: int | None, message: str) -> None:
    """Junk, broken YAML and texts made to exhaust memory give one problem each, with its place."""
    (problem,) = problems(text, source="demo/experiment.yaml")
    assert message in problem.message
    assert problem.file == "demo/experiment.yaml"
    assert line is None or (problem.line, problem.column) == (line, column)


@pytest.mark.parametrize(
    ("text", "line", "field", "message"),
    [
        ("name: x\nnodes: {box: }\nname: y", 3, "name", "written twice in one mapping, first on line 1"),
        ("name: x\nnodes:\n  box: {cpus: 1, cpus: 2}", 3, "nodes.box.cpus", "written twice in one mapping, first on line 3"),
        ("name: x\nnodes: {box: {env: *e}}", 2, "nodes.box.env", "no anchor &e above this alias"),
        ("name: x\nnodes: {box: &b {env: *b}}", 2, "nodes.box.env", "the alias *b stands inside what it repeats"),
        ("name: x\nnodes: {box: }\nsettings: {a: !!python/object:os.system ls}", 3, "settings.a", "an unknown tag"),
        ("name: x\nnodes: {box: }\nsettings: !mine {a: 1}", 3, "settings", "an unknown tag"),
        ("name: x\nnodes: {box: }\nsettings: {a: !!int five}", 3, "settings.a", "not a value of its tag"),
        ("name: x\nnodes: {box: {[a]: 1}}", 2, "nodes.box", "a key that is a list or a mapping"),
        ("name: x\nnodes: {box: {<<: 5}}", 2, "nodes.box.<<", "not a mapping to merge"),
        ('name: x\nnodes: {box: }\ndescription: "a\\0b"', 3, "description", "a NUL character in text"),
    ],
)
def test_yaml_that_is_not_accepted_names_its_field(text: str, line: int, field: str, message: str) -> None:
    """What YAML allows and an experiment file does not is said of the field where it stands."""
    found = problems(text)[0]
    assert (found.line, found.field, found.message) == (line, field, message)


junk = (
    st.binary(max_size=200)
    | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.text("nameods: {}[]&*<>!|-?,'\"\n\t #%@`${}0123456789", max_size=80).map(str.encode)
)


@settings(max_examples=400, deadline=None)
@given(junk)
@example(b"name: x\nnodes: &a {b: *a}")
@example(b"%YAML 1.1\n---\n...\n%TAG ! a\n")
@example(b"a: !<tag:yaml.org,2002:merge> <<")
@example(b"? - a\n: - b\n")
def test_any_bytes_are_an_experiment_or_a_problem(text: bytes) -> None:
    """Whatever the bytes, the result is an experiment or an ExperimentFileError."""
    with suppress(ExperimentFileError):
        assert isinstance(file.loads(text), Experiment)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_file_is_an_experiment_or_a_problem(data: st.DataObject) -> None:
    """A whole file with a stretch cut out, moved or replaced gives problems with a place in the file, and never anything else."""
    start = data.draw(st.integers(0, len(WHOLE)))
    end = data.draw(st.integers(start, min(len(WHOLE), start + 60)))
    put = data.draw(
        st.sampled_from(["", "~", "[]", "{}", "5", "x", "${clients}", "${nothing}", "{a: {b: }}", "&a [*a]", "\n  ", ": ", "null"])
    )
    text = WHOLE[:start] + put + WHOLE[end:]
    found = _problems_or_none(text)
    assert found is None or found
    assert all(1 <= (problem.line or 0) <= text.count("\n") + 2 and (problem.column or 0) >= 1 for problem in found or ())


def _problems_or_none(text: str) -> list[Problem] | None:
    try:
        file.loads(text, providers=PROVIDERS)
    except ExperimentFileError as error:
        return error.problems
    return None


def test_reading_leaves_the_stack_alone() -> None:
    """A deep text is refused also where little of the stack is left."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    try:
        assert "deep" in problems("a: " + "[" * 1000)[0].message
    finally:
        sys.setrecursionlimit(limit)


# Fields


@pytest.mark.parametrize(
    ("text", "place", "field", "expected", "got", "suggestion"),
    [
        ("nodes: {box: {count: abc}}", (2, 22), "nodes.box.count", "an integer", "'abc'", None),
        ("nodes: {box: {count: -1}}", (2, 22), "nodes.box.count", "at least 0", "'-1'", None),
        ("nodes: {box: {cpus: [1]}}", (2, 15), "nodes.box.cpus", "a number", "a list", None),
        ("nodes: {box: {cpus: .inf}}", (2, 21), "nodes.box.cpus", "a number", "'.inf'", None),
        ("nodes: {box: {memory: 1KiB}}", (2, 23), "nodes.box.memory", "at least 4MiB", "'1KiB'", None),
        ("nodes: {box: {memory: much}}", (2, 23), "nodes.box.memory", "a size such as 512MiB, 2GiB or 64KiB", "'much'", None),
        ("nodes: {box: {internet: maybe}}", (2, 25), "nodes.box.internet", "true or false", "'maybe'", None),
        ("nodes: {box: {env: {A: }}}", (2, 24), "nodes.box.env.A", "text", "nothing", None),
        ("nodes: {box: {files: {a: b}}}", (2, 26), "nodes.box.files.a", "an absolute path without ..", "'b'", None),
        ("nodes: {box: {files: [{source: a, target: /b, mode: 999}]}}", (2, 53), "nodes.box.files[0].mode", "permissions in octal", "'999'", None),
        ("nodes: [box, box]", (2, 1), "nodes", "each name once", "a list", None),
        ("nodes: {}", (2, 1), "nodes", "at least one node", "an empty mapping", None),
        ("nodes: 5", (2, 8), "nodes", "a mapping", "'5'", None),
        ("nodes: {Box: }", (2, 9), "nodes.Box", "a name of at most 40", None, None),
        ("nodes: {all: }", (2, 9), "nodes.all", "a name other than 'all'", None, None),
        ("nodes: {box: {memry: 1GiB}}", (2, 15), "nodes.box.memry", "one of count, roles", None, "memory"),
        ("nodes: {box: {networks: {net: {dealy: 1ms}}}}", (2, 32), "nodes.box.networks.net.dealy", "one of delay", None, "delay"),
        ("nodes: {box: {networks: {net: {delay: 30}}}}", (2, 39), "nodes.box.networks.net.delay", "a duration with its unit", "'30'", None),
        ("nodes: {box: {networks: {net: {up: {queue: 5}}}}}", (2, 44), "nodes.box.networks.net.up.queue", "a rate beside the queue", "'5'", None),
        ("nodes: {box: {networks: {net: {queue: 5}}}}", (2, 39), "nodes.box.networks.net.queue", "a rate beside the queue", "'5'", None),
        ("nodes: {box: {networks: {net: {rate: 1mbit, queue: 0}}}}", (2, 52), "nodes.box.networks.net.queue", "at least 1 packet", "'0'", None),
        ("nodes: {box: }\nnetworks: {net: {subnet: 10.1.0.0/30}}", (3, 26), "networks.net.subnet", "/29 or larger", "'10.1.0.0/30'", None),
        ("nodes: {box: }\nnetworks: {net: {subnet: 10.1.0.1/24}}", (3, 26), "networks.net.subnet", "an IPv4 network", "'10.1.0.1/24'", None),
        ("nodes: {box: }\nlease: {duration: 0h}", (3, 19), "lease.duration", "more than 0s", "'0h'", None),
        ("nodes: {box: }\nlease: {duration: 1h, at_end: dwon}", (3, 31), "lease.at_end", "'down' or 'keep'", "'dwon'", "down"),
        ("nodes: {box: }\nlease: {at_end: down}", (3, 1), "lease.duration", "counted from `up`", None, None),
        ("nodes: {box: }\nservices: {a: {on: box, command: []}}", (3, 25), "services.a.command", "a command:", "an empty list", None),
        ("nodes: {box: }\nservices: {a: {on: box, command: a, ready: {}}}", (3, 37), "services.a.ready", "exactly one of", "an empty mapping", None),
        ("nodes: {box: }\nservices: {a: {on: box, command: a, ready: {log: (}}}", (3, 50), "services.a.ready.log", "a regular", "'('", None),
        ("nodes: {box: }\ncollect: [/a, b]", (3, 15), "collect[1]", "an absolute path on the node", "'b'", None),
        ("nodes: {box: }\nparameters: {a-b: 5}", (3, 14), "parameters.a-b", "a name of letters", None, None),
        ("nodes: {box: }\nparameters: {a: [5]}", (3, 14), "parameters.a", "a number, text", "a list", None),
        ("nodes: {box: }\nparameters: {a: {default: 5, minimum: 6}}", (3, 27), "parameters.a.default", "at least 6", "'5'", None),
        ("nodes: {box: }\nnods: 5", (3, 1), "nods", "one of name", None, "nodes"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_placed_and_explained(
    text: str, place: tuple[int, int], field: str, expected: str, got: str | None, suggestion: str | None
) -> None:
    """Each wrong value is one problem with line, column, field, what was expected and what came."""
    problem = only(f"name: x\n{text}")
    assert (problem.line, problem.column, problem.field) == (*place, field)
    assert expected in (problem.expected or "")
    assert (problem.got, problem.suggestion) == (got, suggestion)


def test_a_problem_reads_as_one_line() -> None:
    """A problem prints as file, place, field, what is wrong, what was expected, what came, and a guess."""
    with pytest.raises(ExperimentFileError) as caught:
        file.loads("name: x\nnodes: {a: {networks: [lna]}}\nnetworks: {lan: }", "demo.yaml")
    assert str(caught.value) == (
        "demo.yaml:2:24: nodes.a.networks.lna: no network is called 'lna'; expected one of lan (did you mean 'lan'?)"
    )


def test_all_problems_come_at_once_and_no_more_than_there_are() -> None:
    """Wrong values, unknown fields and names that do not fit are reported together, and none follows from another."""
    found = problems(
        """\
        name: x
        networks:
          lan: {subnet: nonsense}
          wan: {}
        nodes:
          client: {count: many, memory: 1, networks: [lan], routes: maybe}
          Server: {networks: [lan], roles: [web]}
          router: {networks: [lan, lan], routes: true}
        links:
          up: {between: [lan, wam], rate: fast, queue: 5}
        services:
          play: {on: "client[7]", command: ls, ready: {port: none}}
          web: {on: web, command: ls, restrat: no}
        collect: [5, {on: clint, path: /x}]
        """
    )
    assert [(problem.line, problem.field) for problem in found] == [
        (3, "networks.lan.subnet"),
        (6, "nodes.client.count"),
        (6, "nodes.client.memory"),
        (6, "nodes.client.routes"),
        (7, "nodes.Server"),
        (8, "nodes.router.networks"),
        (10, "links.up.between[1]"),
        (10, "links.up.rate"),
        (12, "services.play.ready.port"),
        (13, "services.web.restrat"),
        (14, "collect[0]"),
        (14, "collect[1].on"),
    ]


def test_nothing_right_is_all_said() -> None:
    """A file that has none of what is required shows that beside everything else."""
    found = problems("zone: 1\nsettings: 5\n")
    assert [problem.field for problem in found] == ["name", "nodes", "zone", "settings"]


# Names and addresses


@pytest.mark.parametrize(
    ("text", "place", "field", "message", "suggestion"),
    [
        ("nodes: {a: {networks: {lna: }}}", (4, 24), "nodes.a.networks.lna", "no network is called 'lna'", "lan"),
        ("nodes: {a: {networks: lna}}", (4, 23), "nodes.a.networks", "no network is called 'lna'", "lan"),
        ("nodes: {a: }", (4, 9), "nodes.a.networks", "names no network", None),
        ("nodes: {a: {networks: [lan], site: lba}}\nsites: {lab: {provider: x}}", (4, 36), "nodes.a.site", "no site is called 'lba'", "lab"),
        ("nodes: {a: {networks: [lan], routes: true}}", (4, 38), "nodes.a.routes", "a node that routes", None),
        ("nodes: {a: {networks: [lan], roles: [b]}, b: {networks: []}}", (4, 38), "nodes.a.roles[0]", "the role b is the name of a node", None),
        ("nodes: {a: {networks: [lan], count: 2}, a-1: {networks: []}}", (4, 41), "nodes.a-1", "has the hostname of a[1]", None),
        ("nodes: [a]\nlinks: {l: {between: [lan, wna]}}", (5, 28), "links.l.between[1]", "no network is called 'wna'", "wan"),
        ("nodes: [a]\nlinks: {l: {between: [lan, lan]}}", (5, 13), "links.l.between", "joins a network to itself", None),
        ("nodes: [a]\nlinks: {l: {between: [lan, wan]}, m: {between: [wan, lan]}}", (5, 39), "links.m.between", "networks as link l", None),
        ("nodes: [a]\nservices: {s: {on: b, command: ls}}", (5, 20), "services.s.on", "no node, group or role is called 'b'", None),
        ("nodes: [alpha]\nservices: {s: {on: alhpa, command: ls}}", (5, 20), "services.s.on", "is called 'alhpa'", "alpha"),
        ("nodes: [a]\nservices: {s: {on: 'a[0]', command: ls}}", (5, 20), "services.s.on", "'a' is no group with a count", None),
        ("nodes: [a]\nservices: {s: {on: 'a,,a', command: ls}}", (5, 20), "services.s.on", "has an empty part", None),
        ("nodes: [a]\ncollect: [/x, {on: '!a', path: /x}]", (5, 20), "collect[1].on", "picks no node", None),
        ("nodes: {a: {networks: {lan: {address: 10.1.0.1}}}}", (4, 39), "nodes.a.networks.lan.address", "kept for the gateway", None),
        ("nodes: {a: {networks: {lan: {address: 10.1.0.0}}}}", (4, 39), "nodes.a.networks.lan.address", "is the network address", None),
        ("nodes: {a: {networks: {lan: {address: 10.1.0.15}}}}", (4, 39), "nodes.a.networks.lan.address", "is the broadcast address", None),
        ("nodes: {a: {networks: {lan: {address: 10.2.0.5}}}}", (4, 39), "nodes.a.networks.lan.address", "lies outside of network lan", None),
        ("nodes: {a: {networks: {wan: {address: 10.2.0.5}}}}", (4, 39), "nodes.a.networks.wan.address", "names no subnet", None),
        ("nodes: {a: {count: 2, networks: {lan: {address: 10.1.0.5}}}}", (4, 49), "nodes.a.networks.lan.address", "one address for the 2", None),
        (
            "nodes: {a: {networks: &n {lan: {address: 10.1.0.5}}}, b: {networks: *n}}",
            (4, 42), "nodes.b.networks.lan.address", "is used by node a already", None,
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_placed(text: str, place: tuple[int, int], field: str, message: str, suggestion: str | None) -> None:
    """Names that do not exist and addresses that do not fit are one problem each, at the name or the value."""
    text = text.replace("nodes: [a]", "nodes: {a: {networks: []}}").replace("nodes: [alpha]", "nodes: {alpha: {networks: []}}")
    problem = only(f"name: x\nnetworks: {{wan: ,\n  lan: {{subnet: 10.1.0.0/28}}}}\n{text}")
    assert (problem.line, problem.column, problem.field) == (*place, field)
    assert message in problem.message
    assert problem.suggestion == suggestion


def test_overlapping_subnets_name_each_other() -> None:
    """Two networks that share addresses are one problem, which names the other network and its range."""
    problem = only("name: x\nnodes: {a: {networks: []}}\nnetworks: {a: {subnet: 10.1.0.0/24}, b: {subnet: 10.1.0.128/25}}")
    assert (problem.field, problem.line, problem.column) == ("networks.b.subnet", 3, 50)
    assert problem.message == "overlaps the subnet of network a, 10.1.0.0/24"


def test_a_node_joins_the_only_network_unasked() -> None:
    """With one network or none a node need not name it, and may name the implicit one."""
    assert loads("networks: [lan]\nnodes: {a: , b: {networks: [lan]}}").nodes["a"].networks is None
    assert loads("nodes: {a: , b: {networks: {net: {delay: 1ms}}}}").nodes["a"].networks is None


def test_a_group_may_be_empty() -> None:
    """A count of 0 leaves selectors of the group valid, so that a parameter can switch a part off."""
    made = loads("parameters: {cross: 0}\nnodes: {a: , cross: {count: '${cross}'}}\nservices: {s: {on: 'cross[0]', command: ls}}")
    assert made.nodes["cross"].count == 0


@pytest.mark.parametrize(
    ("text", "field", "message", "suggestion"),
    [
        ("provider: lokal", "provider", "no provider is called 'lokal'", "local"),
        ("settings: {cgroup: yes}", "settings.cgroup", "unknown field", "cgroups"),
        ("settings: {relays: two}", "settings.relays", "wrong value", None),
        ("sites: {lab: {provider: lcoal}}", "sites.lab.provider", "no provider is called 'lcoal'", "local"),
        ("sites: {lab: {provider: local, settings: {relays: x}}}", "sites.lab.settings.relays", "wrong value", None),
        (
            "provider: lab\nsettings: {relays: 1}\nsites: {lab: {provider: local}}",
            "settings",
            "the settings of site lab belong to it",
            None,
        ),
    ],
)
def test_provider_settings_are_checked_where_providers_are_known(text: str, field: str, message: str, suggestion: str | None) -> None:
    """A provider that does not exist and settings that it refuses are problems; without providers given they are not looked at."""
    problem = only(f"name: x\nnodes: {{a: }}\n{text}", providers=PROVIDERS)
    assert (problem.field, problem.message, problem.suggestion) == (field, message, suggestion)
    if "belong" not in message:
        file.loads(f"name: x\nnodes: {{a: }}\n{text}")


def test_a_default_that_no_provider_has_is_a_problem() -> None:
    """Where the file names no provider and there is none of the default's name, that is said of `provider`."""
    assert only("name: x\nnodes: {a: }\n", providers={"docker": LocalSettings}).field == "provider"


# Parameters


PARAMETERS = """\
name: x
parameters: {n: 3, share: 0.5, text: abc, flag: true, delay: {default: 30, minimum: 0, maximum: 100}}
nodes:
  a: {count: "${n}", cpus: "${share}", internet: "${flag}", env: {A: "${n}-${text}-${share}", B: "$${n}", C: "$$${n}", D: "${"}}
settings: {n: "${n}", flag: "${flag}", text: "x${n}", list: ["${share}"]}
networks: {net: {delay: "${delay}ms"}}
"""


def test_parameters_are_replaced_with_their_types() -> None:
    """A scalar that is one reference takes the typed value, others take text, and `$${` stands for itself."""
    made = file.loads(PARAMETERS)
    node = made.nodes["a"]
    assert (node.count, node.cpus, node.internet) == (3, 0.5, True)
    assert node.env == {"A": "3-abc-0.5", "B": "${n}", "C": "$${n}", "D": "${"}
    assert made.settings == {"n": 3, "flag": True, "text": "x3", "list": [0.5]}
    assert made.networks["net"].delay == 0.03


def test_given_values_replace_defaults() -> None:
    """Given values are converted to the parameter's type, used, and kept as its default."""
    made = file.loads(PARAMETERS, parameters={"n": "20", "flag": "off", "delay": 5.0, "share": 2, "text": 7})
    assert {name: item.default for name, item in made.parameters.items()} == {"n": 20, "share": 2.0, "text": "7", "flag": False, "delay": 5}
    assert (made.nodes["a"].count, made.nodes["a"].cpus, made.nodes["a"].internet, made.networks["net"].delay) == (20, 2, False, 0.005)
    assert made.nodes["a"].env["A"] == "20-7-2"
    assert made.parameters["delay"].maximum == 100


@pytest.mark.parametrize(
    ("given", "field", "message", "expected", "suggestion"),
    [
        ({"m": 1}, "parameters", "no parameter is called 'm'", "one of n, share, text, flag, delay", None),
        ({"dealy": 1}, "parameters", "no parameter is called 'dealy'", "one of", "delay"),
        ({"n": "many"}, "parameters.n", "the value given does not fit", "an integer", None),
        ({"n": 2.5}, "parameters.n", "the value given does not fit", "an integer", None),
        ({"n": None}, "parameters.n", "the value given does not fit", "an integer", None),
        ({"share": "nan"}, "parameters.share", "the value given does not fit", "a number", None),
        ({"flag": "perhaps"}, "parameters.flag", "the value given does not fit", "true or false", None),
        ({"delay": 101}, "parameters.delay", "the value given does not fit", "at most 100", None),
    ],
)
def test_given_values_that_do_not_fit(given: dict[str, object], field: str, message: str, expected: str, suggestion: str | None) -> None:
    """A value for no parameter, or of another type, is a problem at the parameter."""
    problem = only(PARAMETERS, parameters=given)
    assert (problem.line, problem.field, problem.message, problem.suggestion) == (2, field, message, suggestion)
    assert expected in (problem.expected or "")


def test_a_given_value_that_breaks_a_field_shows_what_became_of_it() -> None:
    """Where a field is wrong because of a parameter, the problem shows the text as written and as replaced."""
    problem = only(PARAMETERS, parameters={"n": -1})
    assert (problem.field, problem.got) == ("nodes.a.count", "'${n}', which is '-1'")


def test_an_unknown_reference_is_a_problem_outside_of_shell_code() -> None:
    """`${name}` that is no parameter is a problem, but in `setup` and commands it belongs to the shell."""
    text = """\
        name: x
        parameters: {clients: 2}
        nodes: {a: {setup: "echo ${cleints} ${clients} ${x:-y}", env: {A: "${cleints}"}}}
        services:
          s: {on: a, command: "${cleints}", ready: {command: ["${cleints}"]}}
          t: {on: a, command: [sh, "${HOME}"]}
        """
    problem = only(text)
    assert (problem.line, problem.field, problem.suggestion) == (3, "nodes.a.env.A", "clients")
    made = file.loads(dedent(text).replace('A: "${cleints}"', "A: b"))
    assert made.nodes["a"].setup == "echo ${cleints} 2 ${x:-y}"
    assert made.services["s"].command == "${cleints}"


def test_replacing_is_bounded() -> None:
    """A text that parameters would blow up is a problem, not a full memory."""
    text = f"name: x\nparameters: {{p: {'y' * 100_000}}}\nnodes: {{a: }}\ndescription: {'${p}' * 1000}\n"
    assert only(text).message == "too long"


# Python objects


def test_python_objects_are_checked_alike() -> None:
    """An experiment made of objects passes through the same checks as a file."""
    made = Experiment(name="x", nodes={"a": Node(networks={"lan": {}})})  # type: ignore[dict-item]
    with pytest.raises(ExperimentFileError) as caught:
        file.check(made, PROVIDERS)
    assert [problem.field for problem in caught.value.problems] == ["nodes.a.networks.lan"]
    assert str(caught.value) == "experiment: nodes.a.networks.lan: no network is called 'lan'; expected one of net"
    file.check(Experiment(name="x", nodes={"a": Node()}), PROVIDERS)
