"""The files that the services read. Each is written whole; nothing of Debian's own configuration is read or changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .layout import HOST, REGION, Layout, write

PATIENCE = 180
"""Longest that one service waits for another's answer, seconds: on a busy machine the default of a minute is not enough."""

Sections = Mapping[str, Mapping[str, object]]


def write_all(layout: Layout) -> None:
    """Write every service's file."""
    for service, sections in {
        "keystone": _keystone(layout),
        "placement": _placement(layout),
        "glance": _glance(layout),
        "nova": _nova(layout),
        "neutron": _neutron(layout),
        "blazar": _blazar(layout),
        **{f"compute-{host}": _compute(layout, host) for host in layout.compute_hosts()},
        **{f"agent-{host}": _agent(layout, host) for host in layout.compute_hosts()},
        **({"agent-dhcp": _dhcp(layout), "agent-router": _router(layout)} if layout.full else {}),
    }.items():
        write(layout.configuration(service), _text({**sections, "oslo_policy": _policy(layout)}))
    write(layout.configuration("rabbitmq"), _rabbitmq(layout))
    # its files are in a folder that nobody else may enter
    write(layout.configuration("dnsmasq"), "user=root\ngroup=root\n")
    write(layout.state / "etc" / "rabbitmq" / "enabled_plugins", "[].\n")
    # Nova's own way to its files knows one folder for both
    write(layout.configuration("nova").with_name("api-paste.ini"), Path("/usr/share/nova-common/api-paste.ini").read_text())
    write(layout.state / "etc" / "policy" / "policy.yaml", "".join(f'"{rule}": "@"\n' for rule in OPEN))
    write(layout.clouds, _clouds(layout))


OPEN = ("blazar:oshosts:get", "blazar:oshosts:get_allocations")
"""What every user may do besides: see the hosts that can be reserved, and by when they are held, as Chameleon has it."""


def _text(sections: Sections) -> str:
    lines = []
    for name, values in sections.items():
        given = [(key, item) for key, value in values.items() for item in (value if isinstance(value, tuple) else (value,))]
        lines += [f"[{name}]", *(f"{key} = {item}" for key, item in given), ""]
    return "\n".join(lines)


def _common(layout: Layout, service: str) -> dict[str, object]:
    return {
        "use_stderr": "true",
        "transport_url": layout.messages,
        "state_path": layout.state / "run" / service,
        "rpc_response_timeout": PATIENCE,
    }


def _account(layout: Layout) -> dict[str, object]:
    return {
        "auth_type": "password",
        "auth_url": layout.url("identity", "/v3"),
        "username": "service",
        "password": layout.passwords["service"],
        "project_name": "service",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
        "region_name": REGION,
    }


def _tokens(layout: Layout) -> dict[str, object]:
    return {**_account(layout), "www_authenticate_uri": layout.url("identity", "/v3"), "service_token_roles_required": "true"}


def _database(layout: Layout, name: str) -> dict[str, object]:
    return {"connection": layout.database(name), "max_pool_size": 10, "max_overflow": 20}


def _locks(layout: Layout, service: str) -> dict[str, object]:
    return {"lock_path": layout.state / "lock" / service}


def _privileged(*sections: str) -> Sections:
    """How a service starts what does the work that needs privileges."""
    return {section: {"helper_command": f"/usr/bin/python3 {Path(__file__).with_name('privsep.py')}"} for section in sections}


def _policy(layout: Layout) -> dict[str, object]:
    """What users may do is as the services' own code says. Debian's files are not read."""
    folder = layout.state / "etc" / "policy"
    return {"policy_file": folder / "policy.yaml", "policy_dirs": folder / "more"}


def _keystone(layout: Layout) -> Sections:
    keys = layout.state / "run"
    return {
        "DEFAULT": {"use_stderr": "true"},
        "database": _database(layout, "keystone"),
        # a service logs in often, and a password is expensive to check
        "identity": {"password_hash_rounds": 4},
        "token": {"provider": "fernet", "expiration": 3600},
        "fernet_tokens": {"key_repository": keys / "fernet"},
        "credential": {"key_repository": keys / "credential"},
        # without it, each request is 300 statements of SQL, a second of a processor; in the memory of one process, it is never out of date
        "cache": {"enabled": "true", "backend": "dogpile.cache.memory"},
    }


def _placement(layout: Layout) -> Sections:
    return {
        "DEFAULT": {"use_stderr": "true"},
        "api": {"auth_strategy": "keystone"},
        "keystone_authtoken": _tokens(layout),
        "placement_database": _database(layout, "placement"),
    }


def _glance(layout: Layout) -> Sections:
    return {
        "DEFAULT": {
            **_common(layout, "glance"),
            "bind_host": HOST,
            "bind_port": layout.port("image"),
            "http_keepalive": False,
            "workers": 0,
            "enabled_backends": "files:file",
        },
        "database": _database(layout, "glance"),
        "keystone_authtoken": _tokens(layout),
        "paste_deploy": {"flavor": "keystone", "config_file": "/usr/share/glance-common/glance-api-paste.ini"},
        "glance_store": {"default_backend": "files"},
        **{
            store: {"filesystem_store_datadir": layout.state / "images" / store}
            for store in ("files", "os_glance_staging_store", "os_glance_tasks_store")
        },
        "oslo_concurrency": _locks(layout, "glance"),
    }


FILTERS = (
    "ComputeFilter",
    "ComputeCapabilitiesFilter",
    "ImagePropertiesFilter",
    "ServerGroupAntiAffinityFilter",
    "ServerGroupAffinityFilter",
    "AggregateInstanceExtraSpecsFilter",
    "BlazarFilter",
)
"""Nova's own, and those that Blazar wants."""


def _nova(layout: Layout) -> Sections:
    return {
        "DEFAULT": {
            **_common(layout, "nova"),
            "my_ip": HOST,
            "compute_driver": "libvirt.LibvirtDriver" if layout.full else "fake.BootingDriver" if layout.boot else "fake.FakeDriver",
            # servers that boot do not wait for one another, as if each had a host to itself
            **({"max_concurrent_builds": 0} if layout.boot else {}),
            "enabled_apis": "osapi_compute",
            # the fake driver plugs nothing in, so that Neutron will never tell of it
            "vif_plugging_is_fatal": "false",
            "vif_plugging_timeout": 0,
            "allow_resize_to_same_host": "true",
        },
        "api_database": _database(layout, "nova_api"),
        "database": _database(layout, "nova"),
        "keystone_authtoken": _tokens(layout),
        "placement": _account(layout),
        "neutron": _account(layout),
        "glance": {**_account(layout), "api_servers": layout.url("image")},
        "service_user": {**_account(layout), "send_service_user_token": "true"},
        "vnc": {"enabled": "false"},
        "conductor": {"workers": 1},
        "scheduler": {"workers": 1},
        # a host in Blazar's hands takes only servers that say in which reservation they are
        "filter_scheduler": {
            "available_filters": ("nova.scheduler.filters.all_filters", "blazarnova.scheduler.filters.blazar_filter.BlazarFilter"),
            "enabled_filters": ",".join(FILTERS),
        },
        "quota": {"instances": 500, "cores": 1000, "ram": 1_000_000, "key_pairs": 500},
        "oslo_concurrency": _locks(layout, "nova"),
    }


def _compute(layout: Layout, host: str) -> Sections:
    common = {"DEFAULT": {"host": host, "state_path": layout.state / "run" / host}, "oslo_concurrency": _locks(layout, host)}
    if not layout.full:
        return common
    return {
        **common,
        "DEFAULT": {
            **common["DEFAULT"],
            "instances_path": layout.machines,
            "force_config_drive": "true",
            "mkisofs_cmd": "genisoimage",
            "force_raw_images": "false",
            "reserved_host_memory_mb": 0,
            "reserved_host_disk_mb": 0,
        },
        # emulated, by default a processor is older than what numpy and others are built for
        "libvirt": {"virt_type": "qemu", "cpu_mode": "custom", "cpu_models": "Nehalem"},
        **_privileged("nova_sys_admin", "privsep_osbrick", "vif_plug_linux_bridge_privileged"),
    }


def _neutron(layout: Layout) -> Sections:
    return {
        "DEFAULT": {
            **_common(layout, "neutron"),
            "bind_host": HOST,
            "bind_port": layout.port("network"),
            "core_plugin": "ml2",
            "service_plugins": "router",
            "auth_strategy": "keystone",
            "api_paste_config": "/usr/share/neutron-common/api-paste.ini",
            # it answers nobody any more while a hundred connections are open, whether or not they are used
            "wsgi_keep_alive": False,
            # most of the work for a server is Neutron's, and one worker uses one processor
            "api_workers": 2,
            "rpc_workers": 1,
            "rpc_state_report_workers": 0,
            "dhcp_agent_notification": "true" if layout.full else "false",
            "notify_nova_on_port_status_changes": "false",
            "notify_nova_on_port_data_changes": "false",
        },
        "database": _database(layout, "neutron"),
        "keystone_authtoken": _tokens(layout),
        "experimental": {"linuxbridge": "true"},
        "ml2": {
            "type_drivers": f"flat,{_network_type(layout)}",
            "tenant_network_types": _network_type(layout),
            "mechanism_drivers": "linuxbridge",
            "extension_drivers": "port_security",
        },
        "ml2_type_vxlan": {"vni_ranges": "1:4000"},
        "ml2_type_flat": {"flat_networks": "public"},
        "securitygroup": {"enable_security_group": "true"},
        "quotas": {f"quota_{kind}": 1000 for kind in ("network", "subnet", "port", "router", "security_group", "floatingip")},
        "oslo_concurrency": _locks(layout, "neutron"),
    }


def _network_type(layout: Layout) -> str:
    """Where there is one host, a network needs no tunnels, and through the loopback interface they would be heard twice."""
    return "local" if layout.full else "vxlan"


def _agent(layout: Layout, host: str) -> Sections:
    """Of the agent that a host's ports are bound to. With the fake driver it never sees an interface: our network stays as it is."""
    return {
        "DEFAULT": {"host": host, "state_path": layout.state / "run" / f"agent-{host}"},
        "vxlan": {"enable_vxlan": "false"} if layout.full else {"enable_vxlan": "true", "local_ip": HOST},
        **({"linux_bridge": {"bridge_mappings": "public:public"}} if layout.full else {}),
        "securitygroup": {"firewall_driver": "noop"},
        "agent": {"root_helper": "", "report_interval": 10},
        **_privileged("privsep", *(f"privsep_{kind}" for kind in ("conntrack", "dhcp_release", "link", "namespace", "ovs_vsctl"))),
        "oslo_concurrency": _locks(layout, f"agent-{host}"),
    }


def _dhcp(layout: Layout) -> Sections:
    """Of the agent that tells machines their addresses."""
    common = _agent(layout, layout.compute_hosts()[0])
    own = {
        "interface_driver": "linuxbridge",
        "state_path": layout.state / "run" / "agent-dhcp",
        "dnsmasq_config_file": layout.configuration("dnsmasq"),
    }
    return {**common, "DEFAULT": {**common["DEFAULT"], **own}, "oslo_concurrency": _locks(layout, "agent-dhcp")}


def _router(layout: Layout) -> Sections:
    """Of the agent that routes, and has floating IPs lead to machines."""
    common = _agent(layout, layout.compute_hosts()[0])
    own = {"interface_driver": "linuxbridge", "state_path": layout.state / "run" / "agent-router", "enable_metadata_proxy": "false"}
    return {**common, "DEFAULT": {**common["DEFAULT"], **own}, "oslo_concurrency": _locks(layout, "agent-router")}


def _blazar(layout: Layout) -> Sections:
    account = _account(layout)
    return {
        "DEFAULT": {
            "use_stderr": "true",
            "transport_url": layout.messages,
            "rpc_response_timeout": PATIENCE,
            "host": HOST,
            "port": layout.port("reservation"),
            "os_auth_protocol": "http",
            "os_auth_host": HOST,
            "os_auth_port": layout.port("identity"),
            "os_auth_version": "v3",
            "os_admin_username": account["username"],
            "os_admin_password": account["password"],
            "os_admin_project_name": account["project_name"],
            "os_region_name": REGION,
            "identity_service": "identity",
        },
        "database": {"connection": layout.database("blazar")},
        "keystone_authtoken": _tokens(layout),
        "manager": {"plugins": "physical.host.plugin,virtual.instance.plugin,virtual.floatingip.plugin"},
        "oslo_concurrency": _locks(layout, "blazar"),
    }


def _rabbitmq(layout: Layout) -> str:
    return "\n".join(
        [
            f"listeners.tcp.1 = {HOST}:{layout.port('messages')}",
            "default_user = testbed",
            f"default_pass = {layout.passwords['messages']}",
            "loopback_users = none",
            "log.console = true",
            "log.file = false",
            "vm_memory_high_watermark.absolute = 1GB",
            "disk_free_limit.absolute = 50MB",
            "",
        ]
    )


def _clouds(layout: Layout) -> str:
    def cloud(name: str, user: str, project: str, password: str) -> str:
        return f"""\
  {name}:
    region_name: {REGION}
    auth:
      auth_url: {layout.url("identity", "/v3")}
      username: {user}
      password: {password}
      project_name: {project}
      user_domain_name: Default
      project_domain_name: Default
"""

    return (
        "clouds:\n"
        + cloud("testbed", "user", "user", layout.passwords["user"])
        + cloud("testbed-admin", "admin", "admin", layout.passwords["admin"])
    )
