"""What all tests against the testbed share."""

import os

import pytest
from openstack_testbed.layout import Layout

from .proxy import running


@pytest.fixture(scope="session")
def layout() -> Layout:
    """The testbed that runs."""
    if (found := running()) is None:
        if os.environ.get("WARDIAN_REQUIRE_ALL"):
            pytest.fail("run `scripts/openstack-testbed start` first")
        pytest.skip("needs `scripts/openstack-testbed start`")
    return found
