"""Keys that are made for one environment, and what a server is told of them at its first boot.

A server's host key is made here and given to it with its user data, so that it is known before the first connection: what answers with
another key is not that server. (The console log, where clouds show one at all, would tell a key too, but bare metal often has none.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def pair() -> tuple[str, str]:
    """A new Ed25519 key: its private half as OpenSSH writes it, and its public half."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), public.decode()


def public(private: str) -> str:
    """The public half of a key of `pair`."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_ssh_private_key(private.encode(), password=None)
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def user_data(spec: Mapping[str, Any], user: str, login: str, host_key: tuple[str, str]) -> str:
    """What cloud-init does at a server's first boot. login: public key of who logs in as `user`. JSON is YAML.

    Only the name of the machine itself is entered in /etc/hosts: those of the other nodes come by SSH, and change with the experiment.
    """
    private, public = host_key
    asked: dict[str, Any] = {
        "hostname": spec["hostname"],
        "manage_etc_hosts": "localhost",
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": private, "ed25519_public": public},
        "ssh_authorized_keys": [login],
        "disable_root": user != "root",
    }
    if user != "root":
        account = {"name": user, "shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL", "ssh_authorized_keys": [login]}
        asked["users"] = ["default", account]
    return "#cloud-config\n" + json.dumps(asked, indent=1) + "\n"
