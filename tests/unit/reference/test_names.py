"""Positions by name: astropy's client of Sesame against a loopback server."""

import time
from urllib.parse import unquote

import pytest
from loopback import LoopbackServer, QuietHandler
from referencefield import EPOCH, FIELD, settings

from lib.reference.build import make_reference
from lib.reference.field import Field
from lib.reference.names import NameUnknown, resolve_name
from lib.reference.vizier import ReferenceUnavailable

KNOWN = {"NGC 1 b": (150.0, 2.0)}
NOWHERE = Field(None, None, FIELD[2], FIELD[2], EPOCH)


class SesameServer(LoopbackServer):
    """Speaks as Sesame does; `asked` is what it was asked for."""

    def __init__(self, slow=0.0):
        self.asked = []

        class Handler(QuietHandler):
            def do_GET(handler):
                name = unquote(handler.path.partition("?")[2])
                self.asked.append(name)
                self.stopping.wait(slow)
                lines = [f"# {name}"]
                if name in KNOWN:
                    lines.append("%J {:.6f} {:+.6f} = 10:00:00 +02:00:00".format(*KNOWN[name]))
                else:
                    lines.append("#!SIMBAD: Nothing found")
                handler.send_response(200)
                handler.end_headers()
                handler.wfile.write("\n".join(lines).encode())

        self.listen(Handler)


def names_from(server, **more):
    return settings(name_servers=(f"{server.address}/sesame/",), **more)


def test_a_field_is_found_by_the_name_of_its_target_and_told(server, tmp_path, caplog):
    """As online as offline from the cache, with one question."""
    tables = []
    with SesameServer() as sesame:
        given = settings(server.address, name_servers=(f"{sesame.address}/sesame/",))
        for refcat in ("online", "offline"):
            tables.append(make_reference(refcat, NOWHERE, tmp_path, given, name=" NGC 1\tb "))
        assert sesame.asked == ["NGC 1 b"]
    for table in tables:
        assert len(table) > 80 and table.meta["named"] == "NGC 1 b at 150.0000 +2.0000"
    assert "looked for about NGC 1" in caplog.text


def test_where_frames_tell_their_pointing_no_name_is_asked(server, tmp_path):
    with SesameServer() as sesame:
        given = settings(server.address, name_servers=(f"{sesame.address}/sesame/",))
        table = make_reference(
            "online", Field(*FIELD, None, EPOCH), tmp_path, given, name="NGC 1 b"
        )
        assert len(table) > 80 and not sesame.asked


def test_what_no_database_knows_has_a_reason(tmp_path):
    with SesameServer() as sesame:
        table = make_reference("online", NOWHERE, tmp_path, names_from(sesame), name="field 7")
    assert len(table) == 0
    for words in ("no frame of the target tells", "do not know field 7", "write target_radec"):
        assert words in table.meta["reason"]


@pytest.mark.parametrize(("refcat", "servers", "why"), [
    ("offline", None, "refcat: offline"), ("online", (), "name_servers"),
])  # fmt: skip
def test_nobody_is_asked_where_none_may_be(tmp_path, refcat, servers, why):
    with SesameServer() as sesame:
        given = names_from(sesame) if servers is None else settings(name_servers=servers)
        table = make_reference(refcat, NOWHERE, tmp_path, given, name="NGC 1 b")
        assert len(table) == 0 and why in table.meta["reason"] and not sesame.asked


def test_servers_that_fail_are_asked_again_and_the_next_one_answers(tmp_path):
    with SesameServer() as broken:
        given = names_from(broken)
    with SesameServer() as good:
        with pytest.raises(ReferenceUnavailable, match="NGC 1 b by name"):
            make_reference("online", NOWHERE, tmp_path, given, name="NGC 1 b", last_attempt=False)
        table = make_reference("online", NOWHERE, tmp_path, given, name="NGC 1 b")
        assert len(table) == 0 and "by name" in table.meta["reason"]
        assert resolve_name("NGC 1 b", tmp_path, settings(
            name_servers=(f"{broken.address}/", f"{good.address}/"))) == (150.0, 2.0)  # fmt: skip


def test_a_slow_server_costs_no_more_than_its_time(tmp_path):
    with SesameServer(slow=30.0) as sesame:
        begin = time.monotonic()
        with pytest.raises(ReferenceUnavailable):
            resolve_name("NGC 1 b", tmp_path, names_from(sesame, timeout=0.5))
        assert time.monotonic() - begin < 5


@pytest.mark.parametrize("name", ["", " \n", "x" * 200])
def test_no_name_is_asked_for(tmp_path, name):
    with SesameServer() as sesame:
        with pytest.raises(NameUnknown):
            resolve_name(name, tmp_path, names_from(sesame))
        assert not sesame.asked


def test_a_damaged_cache_is_asked_for_again(tmp_path):
    with SesameServer() as sesame:
        for _ in range(2):
            assert resolve_name("NGC 1 b", tmp_path, names_from(sesame)) == (150.0, 2.0)
            (kept,) = tmp_path.glob("name-*.json")
            kept.write_text("{")
        assert len(sesame.asked) == 2
