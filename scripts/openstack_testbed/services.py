"""Which services there are: how each is started, and how it shows that it is ready."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from . import SetupError, processes
from .layout import HOST, Layout
from .packages import FILTER, program
from .web import request

PATIENCE = 300.0
"""Longest that a service may take until it answers, seconds. A busy machine takes minutes for what is a matter of seconds."""


@dataclass(frozen=True)
class Service:
    """One of them. port: that on which it listens, by name; http: whether it speaks HTTP there.

    socket: what it listens on where it has no port.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    port: str | None = None
    http: bool = True
    socket: Path | None = None


def database(layout: Layout) -> Service:
    files = layout.state / "database"
    return Service(
        "mariadb",
        [
            *(program("mariadbd") or "mariadbd", "--no-defaults", f"--datadir={files}", f"--socket={layout.state}/run/mariadb.sock"),
            *(f"--pid-file={layout.state}/run/mariadb.pid", f"--bind-address={HOST}", f"--port={layout.port('database')}"),
            *("--skip-name-resolve", "--max-connections=600", "--innodb-buffer-pool-size=128M", "--performance-schema=OFF"),
            # nothing in here is worth waiting for a disk
            *("--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--innodb-doublewrite=0"),
            *("--skip-log-bin", "--user=root"),
        ],
        port="database",
        http=False,
    )


def messages(layout: Layout) -> list[Service]:
    """RabbitMQ, and what maps the names of its nodes to ports: that would otherwise stay behind when RabbitMQ ends."""
    names = {"ERL_EPMD_PORT": str(layout.port("messages-names")), "ERL_EPMD_ADDRESS": HOST}
    folder = layout.state / "rabbitmq"
    settings = {
        "HOME": str(layout.state),
        "RABBITMQ_NODENAME": "testbed@localhost",
        "RABBITMQ_CONFIG_FILE": str(layout.configuration("rabbitmq")),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(layout.state / "etc" / "rabbitmq" / "enabled_plugins"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_MNESIA_BASE": str(folder),
        "RABBITMQ_LOG_BASE": str(layout.state / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(layout.state / "run" / "rabbitmq.pid"),
        "RABBITMQ_DIST_PORT": str(layout.port("messages-nodes")),
        # no spinning while idle: the processors are for the services
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none +S 1:1",
    }
    return [
        Service("epmd", [program("epmd") or "epmd"], names, "messages-names", http=False),
        Service("rabbitmq", ["/usr/lib/rabbitmq/bin/rabbitmq-server"], names | settings, "messages", http=False),
    ]


def hypervisor(layout: Layout) -> list[Service]:
    """What starts virtual machines, where there are any; Nova's part does not wait for it."""
    # without a file of its own it would ask whether a desktop's user may do this
    argv = [program("libvirtd") or "libvirtd", "--config", "/dev/null"]
    return [Service("libvirt", argv, socket=Path("/run/libvirt/libvirt-sock"))] if layout.full else []


def identity(layout: Layout) -> Service:
    env = {"OS_KEYSTONE_CONFIG_FILES": str(layout.configuration("keystone"))}
    return _wsgi(layout, "keystone", "/usr/bin/keystone-wsgi-public", "identity", env, processes=1, threads=4)


def others(layout: Layout) -> list[Service]:
    """All that needs Keystone, and does not need one another to start."""
    nova = {"OS_NOVA_CONFIG_DIR": str(layout.configuration("nova").parent)}
    blazar = ["--config-file", str(layout.configuration("blazar"))]
    return [
        _wsgi(
            layout,
            "placement",
            "/usr/bin/placement-api",
            "placement",
            {"OS_PLACEMENT_CONFIG_DIR": str(layout.configuration("placement").parent)},
        ),
        _wsgi(layout, "nova-api", "/usr/bin/nova-api-wsgi", "compute", nova),
        Service("glance", _debian(layout, "glance.cmd.api", "glance"), port="image"),
        Service("neutron", _debian(layout, "neutron.cmd.eventlet.server", "neutron"), port="network"),
        Service("nova-conductor", _debian(layout, "nova.cmd.conductor", "nova")),
        Service("nova-scheduler", _debian(layout, "nova.cmd.scheduler", "nova"), {"PYTHONPATH": str(layout.blazar / FILTER)}),
        *(_compute(layout, host) for host in layout.compute_hosts()),
        *(
            Service(
                f"neutron-agent-{host}",
                _debian(layout, "neutron.cmd.eventlet.plugins.linuxbridge_neutron_agent", "neutron", f"agent-{host}"),
            )
            for host in layout.compute_hosts()
        ),
        Service("blazar-manager", [str(layout.blazar / "bin" / "blazar-manager"), *blazar]),
        Service(
            "blazar",
            [
                *(str(layout.blazar / "bin" / "gunicorn"), "--bind", f"{HOST}:{layout.port('reservation')}", "--threads", "4"),
                *("--error-logfile", "-", "blazar.wsgi.api:application"),
            ],
            {"OS_BLAZAR_CONFIG_DIR": str(layout.configuration("blazar").parent)},
            "reservation",
        ),
    ]


def agents(layout: Layout) -> list[Service]:
    """What gives virtual machines their addresses, and routes; asked before Neutron answers, each waits for minutes."""
    modules = {"agent-dhcp": "neutron.cmd.eventlet.agents.dhcp", "agent-router": "neutron.cmd.eventlet.agents.l3"}
    return [Service(f"neutron-{name}", _debian(layout, module, "neutron", name)) for name, module in modules.items()] if layout.full else []


def every(layout: Layout) -> list[Service]:
    """All services, in the order of their starting."""
    return [database(layout), *messages(layout), *hypervisor(layout), identity(layout), *others(layout), *agents(layout)]


def address(layout: Layout, service: Service) -> str | None:
    """Where a service listens."""
    return f"{HOST}:{layout.port(service.port)}" if service.port else None


def start(layout: Layout, services: Sequence[Service]) -> None:
    """Start those that do not run, all at once, and wait until each is ready. Raises SetupError."""
    there = processes.running(layout)
    begun: list[tuple[Service, subprocess.Popen[bytes] | None]] = []
    for service in services:
        if service.name not in there and service.port and answers(layout, service.port):
            raise SetupError(f"port {layout.port(service.port)} of {service.name} is taken; choose others with --port")
    for service in services:
        process = None if service.name in there else processes.start(layout, service.name, service.argv, service.env)
        begun.append((service, process))
    for service, process in begun:
        processes.wait(layout, service.name, process, _ready(layout, service), PATIENCE)


def answers(layout: Layout, port: str) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as connection:
        return connection.connect_ex((HOST, layout.port(port))) == 0


def _ready(layout: Layout, service: Service) -> Callable[[], bool]:
    def ready() -> bool:
        if service.port is None:
            return service.socket is None or service.socket.exists()
        if not service.http:
            return answers(layout, service.port)
        try:
            # refused, perhaps: but by the service
            return request(layout, service.port, "GET", "/").status < 500
        except (OSError, HTTPException):
            return False

    return ready


def _wsgi(layout: Layout, name: str, file: str, port: str, env: Mapping[str, str], processes: int = 2, threads: int = 1) -> Service:
    argv = [
        *(program("uwsgi") or "uwsgi", "--plugins", "python3", "--http-socket", f"{HOST}:{layout.port(port)}", "--wsgi-file", file),
        *(
            "--master",
            "--processes",
            "2",
            "--threads",
            "1",
            "--enable-threads",
            "--lazy-apps",
            "--need-app",
            "--die-on-term",
            "--no-orphans",
        ),
        *("--buffer-size", "65535", "--disable-logging", "--listen", "100"),
        # without this, clients that use a connection again see it reset
        *("--add-header", "Connection: close", "--rem-header", "Content-Length"),
    ]
    return Service(name, argv, env, port)


def _compute(layout: Layout, host: str) -> Service:
    """Nova on a host, which has our driver where servers boot."""
    module, env = "nova.cmd.compute", {}
    if layout.boot:
        module, env = "openstack_testbed.booting", {"PYTHONPATH": str(Path(__file__).parents[1]), "WARDIAN_TESTBED_BOOT": str(layout.boot)}
    return Service(f"nova-compute-{host}", _debian(layout, module, "nova", f"compute-{host}"), env)


def _debian(layout: Layout, module: str, *configurations: str) -> list[str]:
    """A program of Debian's packages by its module: the packages that have it under a name bring hypervisors and init scripts."""
    files = [part for name in configurations for part in ("--config-file", str(layout.configuration(name)))]
    return ["/usr/bin/python3", "-c", f"import sys; sys.argv[0] = '{module}'; from {module} import main; sys.exit(main())", *files]
