"""A real OpenStack for tests, on one Debian machine: see docs/openstack-testbed.md. Needs the standard library only.

In the order in which they use one another: `layout` (where everything is), `packages`, `configuration` (the services' files),
`processes` (starting and ending them), `machine` (the namespaces of the full form), `services` (which there are), `debian` (what virtual
machines boot), `setting_up` (databases, users, images), `command`. `booting` is run by Nova, `privsep` by all that need privileges.
"""


class SetupError(Exception):
    """Something that the user can read and act on."""
