"""Answers that no server should give: a sentence each, in bounded bytes, memory and time.

2,000 cases made by chance; `AUTOPROC_FUZZ=5` makes 10,000, other ones each time.
"""

import gzip
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from fuzzcases import chance, tried
from referencefield import FIELD
from vizier_server import Sky, votable

from lib.reference import session
from lib.reference.surveys import GAIA
from lib.reference.vizier import AnswerError, Service, parse, query


def good(rows=5):
    columns, _ = Sky(n=rows).table("I/355/gaiadr3")
    return votable("I/355/gaiadr3", columns, range(rows))


@contextmanager
def answering(respond):
    """Serve on 127.0.0.1 by a function of the handler; give address and requests."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(self.path)
            try:
                respond(self)
            except OSError:
                pass

        do_GET = do_POST

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def ask(address, **how):
    return query(GAIA, *FIELD, address, **{"timeout": 20.0} | how)


def send(handler, body, code=200, **headers):
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def test_endless_body_is_cut(monkeypatch):
    monkeypatch.setattr(session.BoundedSession.__init__, "__defaults__", (1 << 20,))

    def respond(handler):
        send(handler, good())
        while True:
            handler.wfile.write(b" " * 100_000)

    with answering(respond) as (address, asked):
        with pytest.raises(AnswerError, match="more than 1 MB"):
            ask(address)
        assert len(asked) == 1


def test_packed_body_is_cut_when_unpacked(monkeypatch):
    monkeypatch.setattr(session.BoundedSession.__init__, "__defaults__", (1 << 20,))
    bomb = gzip.compress(b" " * (1 << 26))
    with answering(lambda one: send(one, bomb, Content_Encoding="gzip")) as (address, _):
        with pytest.raises(AnswerError, match="more than 1 MB"):
            ask(address)


def test_other_hosts_are_not_followed():
    with answering(lambda one: send(one, good())) as (other, reached):
        to = other.replace("127.0.0.1", "localhost")
        with answering(lambda one: send(one, b"", 302, Location=f"{to}/x")) as (address, _):
            with pytest.raises(AnswerError, match="redirected to localhost, which was not asked"):
                ask(address)
        assert reached == []


def test_the_same_host_is_followed_but_not_in_circles():
    def respond(handler):
        if "moved" in handler.path:
            send(handler, good())
        else:
            send(handler, b"", 307, Location="/moved")

    with answering(respond) as (address, _):
        assert b"</VOTABLE>" in ask(address)[0]
    with answering(lambda one: send(one, b"", 302, Location="/again")) as (address, asked):
        with pytest.raises(AnswerError, match="no answer"):
            ask(address)
        assert len(asked) < 10


def test_reason_phrase_reaches_no_terminal():
    def respond(handler):
        handler.wfile.write(
            "HTTP/1.0 503 busy\x1b[2J\x9b31m\u202e\r\n\r\n".encode("latin-1", "ignore")
        )

    with answering(respond) as (address, _):
        with pytest.raises(AnswerError, match="HTTP 503 busy") as caught:
            ask(address)
    assert str(caught.value).isprintable()


DOUBLE = b'datatype="double"'

FIELDS = [
    (b'unit="mas"', b'unit="parsnips"', "is in parsnips, not in mas"),
    (b'unit="deg"', b'unit="10**(99999)deg"', r"is in 10\*\*\(99999\)deg"),
    (DOUBLE, DOUBLE + b' arraysize="3"', "holds arrays"),
    (DOUBLE, DOUBLE + b' arraysize="*"', "holds arrays"),
    (DOUBLE, DOUBLE + b' arraysize="99999999999"', "unreadable VOTable"),
    (DOUBLE, DOUBLE + b' arraysize="9999x9999x9999"', "unreadable VOTable"),
    (DOUBLE, b'datatype="floatComplex"', "unreadable VOTable"),
    (DOUBLE, b'datatype="boolean"', "unreadable VOTable"),
    (DOUBLE, b'datatype="unsignedByte"', "unreadable VOTable"),
    (DOUBLE, b'datatype="char" arraysize="*"', None),
    (b"<TABLEDATA>", b"<TABLEDATA>" + b"<TR>" * 100_000, "unreadable VOTable"),
    (b"<RESOURCE", b"<RESOURCE>" * 20_000 + b"<RESOURCE", "unreadable VOTable"),
    (b"<TD>", b"<TD>" + b"9" * 5_000_000, None),
]


def test_no_other_file_or_address_is_opened(tmp_path):
    (tmp_path / "secret").write_text("secret")
    data = good()[good().index(b"<TABLEDATA>") : good().index(b"</DATA>")]
    with answering(lambda one: send(one, b"")) as (address, asked):
        for place in (f"file://{tmp_path}/secret", address):
            for stream in (f'<BINARY><STREAM href="{place}"/></BINARY>',
                           f'<FITS><STREAM href="{place}"/></FITS>'):  # fmt: skip
                with pytest.raises(AnswerError, match="whose data are elsewhere"):
                    parse(GAIA, good().replace(data, stream.encode()), "there")
        assert asked == []


@pytest.mark.parametrize(("old", "new", "words"), FIELDS)
def test_odd_tables_are_told_in_a_sentence(old, new, words):
    begun = time.monotonic()
    answer = good().replace(old, new, 1 if len(new) > 1000 else -1)
    assert old in good()
    if words is None:
        assert len(parse(GAIA, answer, "there")["ra"]) == 5
        return
    with pytest.raises(AnswerError, match=words) as caught:
        parse(GAIA, answer, "there")
    assert str(caught.value).startswith("there: I/355/gaiadr3 (GaiaDR3): ")
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 1000
    assert time.monotonic() - begun < 60


def test_next_mirror_is_asked(tmp_path):
    odd = good().replace(b'datatype="double"', b'datatype="double" arraysize="99999999999"')
    columns, _ = Sky(n=300).table("I/355/gaiadr3")
    whole = votable("I/355/gaiadr3", columns, range(300))
    with answering(lambda one: send(one, odd)) as (first, _):
        with answering(lambda one: send(one, whole)) as (second, _):
            table, record = Service(tmp_path, (first, second)).get(GAIA, *FIELD)
    assert record["server"] == second and len(table) > 50


PIECES = [
    DOUBLE, b'datatype="float"', b"<TD>", b"</TD>", b"<TR>", b"</TR>", b"<FIELD", b'unit="mag"',
    b'unit="mas"', b"<DATA>", b"<TABLEDATA>", b"</TABLE>", b"<RESOURCE", b'"', b"=", b"1", b"ICRS",
    b"encoding",
]  # fmt: skip

NEW = [
    b"", b"<", b"&lt;", b"&x;", b'arraysize="9"', b"1e999", b"nan", b"\xff", b"\0", b"<!DOCTYPE x>",
    b"<BINARY>", b"<FITS>", b'datatype="long"', b'datatype="bit"', b"-", b"<VALUES null='1'/>",
    b"<GROUP>", b"'", b"unit='[mag]'", b"href='file:///etc/passwd'",
]  # fmt: skip


def odd_answer(answer, number):
    rng = chance("votable", number)
    for _ in range(rng.randint(1, 4)):
        old, new = rng.choice(PIECES), rng.choice(NEW)
        answer = answer.replace(old, old + new if rng.random() < 0.5 else new, rng.randint(1, 30))
    return answer


def test_any_answer_is_a_table_or_a_sentence(caplog):
    whole = good()

    def one(number):
        try:
            found = parse(GAIA, odd_answer(whole, number), "there")
        except AnswerError as why:
            assert str(why).isprintable()
            return
        assert len({len(values) for values in found.values()}) <= 1
        assert all(values.ndim == 1 and values.dtype.kind in "fU" for values in found.values())
        assert not found or np.isfinite(found["ra"]).any()

    caplog.set_level("CRITICAL", "autoproc")  # it tells of columns that it does without
    failed, ended = tried(one, 2000)
    assert failed == []
    for number in [*range(10), *ended]:
        one(number)
