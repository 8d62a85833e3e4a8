"""A real OpenStack for tests, on one Debian machine: see docs/openstack-testbed.md. Needs the standard library only.

In the order in which they use one another: `layout` (where everything is), `packages`, `configuration` (the services' files),
`processes` (starting and ending them), `services` (which there are), `setting_up` (databases, users, images), `command`.
`booting` is run by Nova.
"""


class SetupError(Exception):
    """Something that the user can read and act on."""
