"""A loopback VizieR for the tests of the reference."""

import logging

import pytest
from vizier_server import VizierServer


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """Keep proxies out of the way of 127.0.0.1, and put the log back as it was."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    log = logging.getLogger("autoproc")
    log.propagate = True
    yield
    for handler in log.handlers:
        handler.close()
    log.handlers[:] = logging.getLogger("py.warnings").handlers[:] = []
    log.propagate = True
    logging.captureWarnings(False)


@pytest.fixture
def server():
    with VizierServer() as running:
        yield running
