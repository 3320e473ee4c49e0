import pytest

from tests.serve.service import Service


# Before xdist reads the marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Group what stays in one process: tests of the shared service, and each other file."""
    for item in items:
        group = "the shared service" if "service" in item.fixturenames else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """One service for all tests that neither restart it nor count everything it holds."""
    with Service(tmp_path_factory.mktemp("service")) as running:
        yield running
