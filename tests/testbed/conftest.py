"""What all tests against the testbed share."""

import os
from collections.abc import Iterator

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


@pytest.fixture(scope="module")
def place(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All tests of a file have one state folder, apart from the user's, and are told of the cloud by a variable."""
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("WARDIAN_STATE", str(tmp_path_factory.mktemp("state")))
        variables.setenv("OS_CLIENT_CONFIG_FILE", str(layout.clouds))
        yield
