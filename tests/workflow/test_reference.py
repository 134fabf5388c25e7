"""The reference from the catalogue servers, through the whole workflow, without network.

A server on 127.0.0.1 speaks VizieR's protocol and knows the stars of the simulated night.
"""

import json

import pytest
import simulate
from astropy.io import fits
from astropy.table import Table
from vizier_server import Sky, VizierServer
from workbench import FILTERS, TARGET, environment

NIGHT = 2022.08  # epoch of the simulated night
DIRECT = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


@pytest.fixture(scope="module")
def server(raw_night):
    stars = simulate.load_truth(raw_night.path)["stars"]
    with VizierServer(Sky.of_stars(stars[stars["r"] < 20.5], NIGHT)) as running:
        yield running


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache that nights share."""
    return tmp_path_factory.mktemp("shared") / "cache"


def settings(cache, server, mode="online"):
    """Return the configuration of a run."""
    hosts = json.dumps([server] if isinstance(server, str) else [server.address])
    return {
        "refcat": mode,
        "refcat_cache": cache,
        "reference": f"{{servers: {hosts}, timeout: 20}}",
    }


def headers(place):
    return [fits.getheader(place.products / f"coadd{TARGET}.{band}.fits") for band in FILTERS]


@pytest.fixture(scope="module")
def online(reduced_night, server, cache, tmp_path_factory):
    """The night, reduced again with a reference from the server."""
    place = reduced_night.copy(tmp_path_factory.mktemp("online") / "night")
    place.before = headers(place)
    place.said = place.snakemake(env=environment(**DIRECT), **settings(cache, server))
    return place


def test_online_reference_ties_the_night(online, server):
    assert online.said.code == 0, online.said.out
    for header, before in zip(headers(online), online.before, strict=True):
        assert header["NSTACK"] == 3
        assert header["ASTRCAT"] == "GaiaDR3"
        assert header["ASTRNST"] >= 25
        # The same sky told by another catalogue: within the errors of both.
        assert abs(header["ABSZPT"] - before["ABSZPT"]) < 3 * max(before["ABSZPERR"], 0.01)
    asked = [(request["-source"], request["-c.rd"]) for request in server.requests]
    # One question for each catalogue (SkyMapper does not reach so far north) and three for the
    # surroundings, not one for each frame or filter.
    assert len(asked) == len(set(asked)) == 9
    assert len({source for source, _ in asked}) == 6


def test_next_night_asks_nothing(online, fresh, server, cache):
    asked = len(server.requests)
    done = fresh.snakemake(
        "--until", "refcat", env=environment(**DIRECT), **settings(cache, server)
    )
    assert done.code == 0, done.out
    assert len(server.requests) == asked
    ours, theirs = (
        Table.read(place.products / "refcat" / f"{TARGET}.ecsv") for place in (fresh, online)
    )
    assert ours.pformat(-1, -1) == theirs.pformat(-1, -1)


def test_offline_takes_what_the_cache_has(online, fresh, server, cache):
    asked = len(server.requests)
    done = fresh.snakemake(
        "--until", "refcat", env=environment(**DIRECT), **settings(cache, server, "offline")
    )
    assert done.code == 0, done.out
    assert len(server.requests) == asked
    table = Table.read(fresh.products / "refcat" / f"{TARGET}.ecsv")
    assert table.meta["source"] == "GaiaDR3" and len(table) > 25


@pytest.mark.parametrize("mode", ["online", pytest.param("offline", marks=pytest.mark.slow)])
def test_without_any_answer_the_night_is_reduced_and_flagged(reduced, tmp_path, mode):
    """All servers down, or an empty cache: not tied, which is said, and no failure."""
    done = reduced.snakemake(
        env=environment(**DIRECT), **settings(tmp_path / "empty", "http://127.0.0.1:9", mode)
    )
    assert done.code == 0, done.out
    for header in headers(reduced):
        assert header["NSTACK"] == 3
        assert header["ASTRCAT"] == "NONE"
        assert "ABSZPT" not in header
    assert done.out.count("positions not tied to a catalogue") == len(FILTERS)
    assert "positions not tied to a catalogue" in (reduced.products / "night.html").read_text()
    meta = Table.read(reduced.products / "refcat" / f"{TARGET}.ecsv").meta
    words = {
        "online": "no answer from the catalogue server, see logs/refcat",
        "offline": f"the cache {tmp_path}/empty has no catalogue of the field (refcat: offline)",
    }
    assert meta["reason"] == words[mode]
    assert done.out.count(words[mode]) >= len(FILTERS)  # and the user is told
    detail = {"online": "127.0.0.1:9", "offline": "no answer that covers"}[mode]
    assert detail in meta["missing"][0] and detail not in done.out
    assert detail in (reduced.products / "logs/refcat" / f"{TARGET}.log").read_text()
