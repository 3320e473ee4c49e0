import pytest

from tests.serve.service import Service


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """One service for all tests that neither restart it nor count everything it holds."""
    with Service(tmp_path_factory.mktemp("service")) as running:
        yield running
