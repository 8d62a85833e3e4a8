"""What a testbed needs once: databases, keys, users, the catalogue of services, hosts, flavours, an image, a network for floating IPs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

from . import SetupError
from .debian import Debian
from .layout import REGION, Layout
from .packages import program
from .processes import run
from .web import Answer, request

DATABASES = ("keystone", "placement", "glance", "nova_api", "nova", "nova_cell0", "neutron", "blazar")
SERVICES = {"placement": "placement", "image": "image", "compute": "compute", "network": "network", "reservation": "reservation"}
PATHS = {"compute": "/v2.1", "reservation": "/v1"}
FLAVORS = {"small": (1, 512, 1), "medium": (2, 2048, 10), "large": (8, 16384, 40)}
"""{name: (processors, memory in MiB, disk in GiB)}, of the fast form"""

FLAVORS_FULL = {"small": (1, 1024, 3), "medium": (2, 2048, 3)}
"""Of the other one."""


def once(layout: Layout, name: str, work: Callable[[], None]) -> None:
    """Do a part of the work unless it was done. Each part can be cut short and done again."""
    done = layout.state / "done" / name
    if not done.exists():
        work()
        done.touch()


def database_files(layout: Layout) -> None:
    """Make the folder that the database is in."""
    shutil.rmtree(layout.state / "database", ignore_errors=True)
    run(
        layout,
        "mariadb",
        [
            *(program("mariadb-install-db") or "mariadb-install-db", "--no-defaults", f"--datadir={layout.state}/database"),
            *("--auth-root-authentication-method=socket", "--skip-test-db", "--user=root"),
        ],
    )


def account(layout: Layout) -> None:
    """Make the account that the services use in the database."""
    user = "'testbed'@'127.0.0.1'"
    lines = [f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{layout.passwords['database']}';"]
    _sql(layout, *lines, *(f"GRANT ALL ON {name}.* TO {user};" for name in DATABASES))


def keystone(layout: Layout) -> None:
    """Fill Keystone's database: tables, keys, the administrator, its own place in the catalogue."""
    _empty(layout, "keystone")
    _keystone(layout, "db_sync")
    for keys in ("fernet_setup", "credential_setup"):
        _keystone(layout, keys, "--keystone-user", "root", "--keystone-group", "root")
    urls = [part for kind in ("admin", "internal", "public") for part in (f"--bootstrap-{kind}-url", layout.url("identity", "/v3"))]
    # the password in its environment: the arguments of a process can be read by everybody
    run(
        layout,
        "keystone",
        [*_manage(layout, "keystone-manage", "keystone"), "bootstrap", "--bootstrap-region-id", REGION, *urls],
        {"OS_BOOTSTRAP_PASSWORD": layout.passwords["admin"]},
    )


def tables(layout: Layout) -> None:
    """Fill the databases of the others, two at a time."""

    def nova() -> None:
        _empty(layout, "nova_api", "nova", "nova_cell0")
        manage = _manage(layout, "nova-manage", "nova")
        run(layout, "nova-api", [*manage, "api_db", "sync"])
        # both are kept in the database, so that no password is an argument
        run(layout, "nova-api", [*manage, "cell_v2", "map_cell0"])
        run(layout, "nova-api", [*manage, "cell_v2", "create_cell", "--name", "c1"])
        run(layout, "nova-api", [*manage, "db", "sync"])

    def neutron() -> None:
        _empty(layout, "neutron")
        run(layout, "neutron", [*_manage(layout, "neutron-db-manage", "neutron"), "upgrade", "head"])

    def small() -> None:
        _empty(layout, "placement", "glance", "blazar")
        run(layout, "placement", [*_manage(layout, "placement-manage", "placement"), "db", "sync"])
        run(layout, "glance", [*_manage(layout, "glance-manage", "glance"), "db_sync"])
        run(layout, "blazar", [*_manage(layout, str(layout.blazar / "bin" / "blazar-db-manage"), "blazar"), "upgrade", "head"])

    with ThreadPoolExecutor(2) as pool:
        for begun in [pool.submit(once, layout, f"tables-{work.__name__}", work) for work in (nova, neutron, small)]:
            begun.result()


def catalogue(layout: Layout) -> None:
    """The services' account, that of who uses the testbed, and where each service is."""
    api = Api(layout)
    roles = {item["name"]: item["id"] for item in api.get("identity", "/v3/roles")["roles"]}
    accounts = {"service": ("service", ["admin", "service"]), "user": ("user", ["member"])}
    if "service" not in roles:
        roles["service"] = api.post("identity", "/v3/roles", {"role": {"name": "service"}})["role"]["id"]
    for user, (project, given) in accounts.items():
        project_id = api.ensure("identity", "/v3/projects", "project", {"name": project, "domain_id": "default"})
        wanted = {"name": user, "domain_id": "default", "password": layout.passwords[user]}
        user_id = api.ensure("identity", "/v3/users", "user", wanted)
        for role in given:
            api.call("PUT", "identity", f"/v3/projects/{project_id}/users/{user_id}/roles/{roles[role]}")
    endpoints = api.get("identity", "/v3/endpoints")["endpoints"]
    for name, kind in SERVICES.items():
        service_id = api.ensure("identity", "/v3/services", "service", {"name": name, "type": kind})
        for interface in ("public", "internal", "admin"):
            if not any(item["service_id"] == service_id and item["interface"] == interface for item in endpoints):
                endpoint = {
                    "service_id": service_id,
                    "interface": interface,
                    "region_id": REGION,
                    "url": layout.url(name, PATHS.get(name, "")),
                }
                api.post("identity", "/v3/endpoints", {"endpoint": endpoint})


def contents(layout: Layout) -> None:
    """What users find on a cloud: flavours, an image, a network outside; and hosts to reserve."""
    api = Api(layout)
    flavors = {item["name"] for item in api.get("compute", "/v2.1/flavors")["flavors"]}
    for name, (cpus, memory, disk) in (FLAVORS_FULL if layout.full else FLAVORS).items():
        if name not in flavors:
            api.post("compute", "/v2.1/flavors", {"flavor": {"name": name, "id": name, "vcpus": cpus, "ram": memory, "disk": disk}})
    if layout.full:
        _machine_image(api, Debian(layout.debian))
    else:
        _image(api, "tiny", bytes(2**20))
    network = api.ensure(
        "network",
        "/v2.0/networks",
        "network",
        {"name": "public", "router:external": True, "provider:network_type": "flat", "provider:physical_network": "public"},
    )
    subnet = {"name": "public", "network_id": network, "ip_version": 4, "cidr": "203.0.113.0/24", "enable_dhcp": False}
    api.ensure("network", "/v2.0/subnets", "subnet", subnet)
    if not any(item["name"] == "freepool" for item in api.get("compute", "/v2.1/os-aggregates")["aggregates"]):
        api.post("compute", "/v2.1/os-aggregates", {"aggregate": {"name": "freepool"}})
    reserved = {item["hypervisor_hostname"] for item in api.get("reservation", "/v1/os-hosts")["hosts"]}
    for host in layout.compute_hosts()[1:]:
        if host not in reserved:
            api.post("reservation", "/v1/os-hosts", {"name": host, "node_type": "compute"})


def hosts(layout: Layout) -> None:
    """Have Nova know its hosts."""
    run(layout, "nova-api", [*_manage(layout, "nova-manage", "nova"), "cell_v2", "discover_hosts"])


def hosts_up(layout: Layout) -> bool:
    """Whether every host can take servers, is known with what it has, and binds ports."""
    api, wanted = Api(layout), set(layout.compute_hosts())
    services = api.get("compute", "/v2.1/os-services?binary=nova-compute")["services"]
    agents = api.get("network", "/v2.0/agents")["agents"]
    computing = {item["host"] for item in services if item["state"] == "up"}
    binding = {item["host"] for item in agents if item["alive"]}
    having = api.get("placement", "/resource_providers")["resource_providers"]
    return wanted <= computing and wanted <= binding and len(having) >= len(wanted)


class Api:
    """The services' interfaces, as the administrator."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        domain = {"id": "default"}
        user = {"name": "admin", "domain": domain, "password": layout.passwords["admin"]}
        scope = {"project": {"name": "admin", "domain": domain}}
        asked = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        self._token = ""
        self._token = self._ask("POST", "identity", "/v3/auth/tokens", asked).headers["x-subject-token"]

    def get(self, service: str, path: str) -> Any:
        """What there is."""
        return self.call("GET", service, path)

    def post(self, service: str, path: str, value: Mapping[str, Any]) -> Any:
        """Make something."""
        return self.call("POST", service, path, value)

    def ensure(self, service: str, path: str, kind: str, value: Mapping[str, Any]) -> str:
        """The id of the one that has this name; made where there is none."""
        for item in self.get(service, f"{path}?name={value['name']}")[f"{kind}s"]:
            return str(item["id"])
        return str(self.post(service, path, {kind: value})[kind]["id"])

    def call(self, method: str, service: str, path: str, value: Any = None, kind: str = "application/json") -> Any:
        """One request. Raises SetupError with the service's own reason."""
        data = self._ask(method, service, path, value, kind).data
        return json.loads(data) if data else None

    def _ask(self, method: str, service: str, path: str, value: Any = None, kind: str = "application/json") -> Answer:
        data = json.dumps(value).encode() if isinstance(value, Mapping) else value
        headers = {"Accept": "application/json", "Content-Type": kind, "X-Auth-Token": self._token}
        answer = request(self._layout, service, method, path, data, headers)
        if answer.status >= 400:
            reason = answer.data.decode(errors="replace")[:500]
            raise SetupError(f"{service} refuses {method} {path} ({answer.status}): {reason}")
        return answer


def _image(api: Api, name: str, content: bytes | Path, disk: str = "raw", container: str = "bare", **more: str) -> str:
    """The id of an image; made where there is none."""
    found = api.get("image", f"/v2/images?name={name}")["images"]
    wanted = {"name": name, "disk_format": disk, "container_format": container, "visibility": "public", **more}
    image = found[0] if found else api.post("image", "/v2/images", wanted)
    if image["status"] == "queued":
        with content.open("rb") if isinstance(content, Path) else BytesIO(content) as file:
            api.call("PUT", "image", f"/v2/images/{image['id']}/file", file, "application/octet-stream")
    return str(image["id"])


def _machine_image(api: Api, debian: Debian) -> None:
    """A file system has no loader of its own: Nova gives the machine its kernel."""
    kernel, initrd = _image(api, "debian-kernel", debian.kernel, "aki", "aki"), _image(api, "debian-initrd", debian.initrd, "ari", "ari")
    more = {"kernel_id": kernel, "ramdisk_id": initrd, "os_command_line": "root=/dev/vda console=ttyS0 quiet", "os_distro": "debian"}
    _image(api, "debian", debian.disk, "qcow2", **more)


def _empty(layout: Layout, *names: str) -> None:
    """Have these databases be there and empty: a change of tables that was cut short cannot be gone on with."""
    _sql(layout, *(f"DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name} CHARACTER SET utf8;" for name in names))


def _sql(layout: Layout, *lines: str) -> None:
    client = [program("mariadb") or "mariadb", "--no-defaults", f"--socket={layout.state}/run/mariadb.sock"]
    run(layout, "mariadb", client, stdin="\n".join(lines))


def _keystone(layout: Layout, *arguments: str) -> None:
    run(layout, "keystone", [*_manage(layout, "keystone-manage", "keystone"), *arguments])


def _manage(layout: Layout, tool: str, service: str) -> list[str]:
    return [program(tool) or tool, "--config-file", str(layout.configuration(service))]
