"""The field of the tests of the reference, and its reference as the rule asks for it."""

import numpy as np

from lib.core.settings import ReferenceSettings
from lib.core.sphere import separation
from lib.reference.build import make_reference
from lib.reference.field import Field

FIELD = (150.0, 2.0, 0.2)
EPOCH = 2026.5


def settings(*servers, **more):
    """Return settings with these servers."""
    return ReferenceSettings(tuple(servers), **more)


def online(server, cache, *, value="online", field=FIELD, servers=None, wide=None, **more):
    """Return the reference as the rule asks for it."""
    servers = [server.address] if servers is None else servers
    time_limit = {"timeout": more.pop("timeout")} if "timeout" in more else {}
    where = Field(*field, wide, EPOCH)
    return make_reference(value, where, cache, settings(*servers, **time_limit), **more)


def truth_of(table, sky):
    """Return the rows of the sky that the stars of a reference are, by position."""
    ra, dec = sky.at(EPOCH)
    away = np.array([separation(ra, dec, star["ra"], star["dec"]) for star in table])
    assert away.min(axis=1).max() * 3.6e6 < 0.5  # mas
    return away.argmin(axis=1)
