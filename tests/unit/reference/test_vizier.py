"""Queries of VizieR and the cache of their answers, against a loopback server."""

import gzip

import numpy as np
import pytest
from astropy.table import Table
from referencefield import FIELD
from vizier_server import Sky, VizierServer, votable

from lib.core.sphere import separation
from lib.reference import vizier
from lib.reference.surveys import APASS, GAIA, PANSTARRS
from lib.reference.vizier import (
    AnswerError,
    ReferenceUnavailable,
    Service,
    find_cached,
    load_answer,
    parse,
    query,
    save_answer,
)


def test_answer_at_the_row_limit_is_asked_for_again_brighter(server, tmp_path):
    table, record = Service(tmp_path, (server.address,), row_limit=150).get(GAIA, *FIELD)
    requests = server.asked("I/355/gaiadr3")
    assert [request.get("Gmag") for request in requests] == [None, "<20", "<18", "<16"][
        : len(requests)
    ]
    assert len(requests) > 1 and record["rows"] < 150
    limit = float(requests[-1]["Gmag"][1:])
    ra, dec = server.sky.at(2016.0)
    inside = separation(ra, dec, *FIELD[:2]) <= FIELD[2]
    assert len(table) == (inside & (server.sky.mag["r"] < limit)).sum()


def test_vizier_request_is_as_vizier_wants_it(server, tmp_path):
    answer, payload = query(GAIA, 150.0, -2.5, 0.1, server.address)
    request = server.requests[0]
    assert request["path"] == "/viz-bin/votable"
    assert request["-c"] == "150.00000000-2.50000000" and request["-c.rd"] == "0.1"
    assert request["-source"] == "I/355/gaiadr3" and "pmRA" in request["-out"].split(",")
    assert "-source=I/355/gaiadr3" in payload and answer.startswith(b"<?xml")


def test_host_name_is_asked_over_https():
    client = vizier._client(GAIA, "vizier.example.org", 1, 10, None)
    assert client._server_to_url() == "https://vizier.example.org/viz-bin/votable"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"<TD>0.0500</TD>", b"<TD>4 mas</TD>", "'e_RA_ICRS' holds no numbers"),
        (b"</TR>", b"</TD></TR>", "unreadable VOTable"),
        (b'datatype="double"', b'datatype="complex"', "unreadable VOTable"),
    ],
)
def test_garbled_values_are_an_error(old, new, words):
    columns, _ = Sky(n=5).table("I/355/gaiadr3")
    answer = votable("I/355/gaiadr3", columns, range(5)).replace(old, new)
    with pytest.raises(AnswerError, match=words):
        parse(GAIA, answer, "there")


def test_a_garbled_cell_is_a_missing_value():
    columns, _ = Sky(n=5).table("I/355/gaiadr3")
    answer = votable("I/355/gaiadr3", columns, range(5)).replace(b">600.000<", b">fast<")
    motion = parse(GAIA, answer, "there")["pmra"]
    assert np.isnan(motion[0]) and np.isfinite(motion[1:]).all()


def test_other_names_of_a_column_are_known(tmp_path):
    fault = ("rename", "g'mag", "g_mag")
    with VizierServer(faults={"II/336/apass9": fault}) as server:
        table, _ = Service(tmp_path, (server.address,)).get(APASS, *FIELD)
    assert np.isfinite(table["g"]).all() and len(table) > 10


def test_cached_file_is_a_votable_with_its_record(server, tmp_path):
    Service(tmp_path, (server.address,)).get(GAIA, *FIELD)
    (path,) = tmp_path.iterdir()
    assert path.name == "I_355_gaiadr3_150.0000+02.0000_r0.250.vot.gz"
    answer, record = load_answer(path)
    assert record["server"] == server.address and record["query"].startswith("-source=I/355")
    assert record["date"].startswith("20") and record["rows"] == len(parse(GAIA, answer, "x")["ra"])
    whole = Table.read(gzip.open(path), format="votable")
    assert len(whole) == record["rows"]


@pytest.mark.parametrize("damage", ["short", "changed", "no record", "not gzip"])
def test_damaged_cache_is_noticed_and_replaced(damage, server, tmp_path):
    service = Service(tmp_path, (server.address,))
    service.get(GAIA, *FIELD)
    (path,) = tmp_path.iterdir()
    content = gzip.decompress(path.read_bytes())
    if damage == "short":
        path.write_bytes(path.read_bytes()[:-400])
    elif damage == "changed":
        path.write_bytes(gzip.compress(content.replace(b"<TD>150.", b"<TD>151.", 1)))
    elif damage == "no record":
        path.write_bytes(gzip.compress(content.split(b"<!-- autoproc")[0]))
    else:
        path.write_bytes(b"hello")
    with pytest.raises(AnswerError, match="broken cache file"):
        load_answer(path)
    with pytest.raises(ReferenceUnavailable, match="broken cache file"):
        Service(tmp_path, ()).get(GAIA, *FIELD)
    table, _ = service.get(GAIA, *FIELD)
    assert len(table) > 80 and len(server.asked("I/355/gaiadr3")) == 2
    load_answer(path)


def test_smallest_covering_circle_is_found(tmp_path):
    for ra, dec, radius in [(10.0, -5.0, 0.5), (10.0, -5.0, 1.0), (359.95, 0.0, 0.3)]:
        save_answer(tmp_path / vizier.cache_name(GAIA, ra, dec, radius), b"<VOTABLE/>", {})
    assert "_r0.500" in find_cached(tmp_path, GAIA, 10.1, -5.1, 0.2).name
    assert "_r1.000" in find_cached(tmp_path, GAIA, 10.1, -5.1, 0.5).name
    assert "359.95" in find_cached(tmp_path, GAIA, 0.05, 0.0, 0.15).name
    assert find_cached(tmp_path, GAIA, 12.0, -5.0, 0.2) is None
    assert find_cached(tmp_path, PANSTARRS, 10.0, -5.0, 0.2) is None
    assert find_cached(tmp_path / "absent", GAIA, 10.0, -5.0, 0.2) is None


def test_record_survives_hyphens(tmp_path):
    save_answer(tmp_path / "a.vot.gz", b"<VOTABLE></VOTABLE>", {"query": "-c=1--2 -->"})
    content = gzip.decompress((tmp_path / "a.vot.gz").read_bytes())
    assert content.count(b"--") == 2  # of the comment itself
    assert load_answer(tmp_path / "a.vot.gz")[1]["query"] == "-c=1--2 -->"


def test_queries_go_through_astroquery(server, tmp_path, monkeypatch):
    from astroquery.vizier import VizierClass

    asked, query_region = [], VizierClass.query_region_async

    def counted(client, *args, **how):
        if not how.get("get_query_payload"):
            asked.append(how["catalog"])
        return query_region(client, *args, **how)

    monkeypatch.setattr(VizierClass, "query_region_async", counted)
    Service(tmp_path, (server.address,)).get(GAIA, *FIELD)
    assert asked == ["I/355/gaiadr3"] and len(server.requests) == 1
