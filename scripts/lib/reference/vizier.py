"""Queries of VizieR and its mirrors by astroquery, and the cache of their answers."""

import gzip
import hashlib
import json
import logging
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from lib.core.files import atomic_path
from lib.core.settings import ReferenceSettings
from lib.core.sphere import separation
from lib.reference.referencetable import blank_table, cut_out
from lib.reference.surveys import Survey
from lib.reference.votable import AnswerError, parse

log = logging.getLogger("autoproc")

ROW_LIMIT = 100_000
"""Rows after which an answer counts as cut off and is asked for again, with brighter stars only."""

NO_SERVER = "no server is left that answers"

TIMEOUT = ReferenceSettings.timeout

Record = dict[str, Any]
"""Provenance of an answer: catalogue, table, server, query, date, rows, circle, checksum."""


class ReferenceUnavailable(Exception):
    """No reference now, perhaps later: the network, the servers, or the cache lack it."""


def _client(
    survey: Survey, server: str, timeout: float, row_limit: int, brighter_than: float | None
) -> Any:
    """Return an astroquery client for one table at one server."""
    from astroquery.vizier import VizierClass

    from lib.reference.session import BoundedSession

    class MirrorClient(VizierClass):
        """VizieR at a host name (https) or at an address with its scheme written out."""

        def _server_to_url(self, return_type: str = "votable") -> str:
            host = self.VIZIER_SERVER
            return f"{host if '://' in host else 'https://' + host}/viz-bin/{return_type}"

    bound = {} if brighter_than is None else {survey.magnitude: f"<{brighter_than:g}"}
    client = MirrorClient(
        columns=list(dict.fromkeys(column.names[0] for column in survey.columns.values())),
        column_filters=bound,
        vizier_server=server,
        timeout=timeout,
        row_limit=row_limit,
    )
    session = BoundedSession()
    session.headers["User-Agent"] = client._session.headers["User-Agent"]
    client._session = session
    return client


def query(
    survey: Survey,
    ra: float,
    dec: float,
    radius: float,
    server: str,
    *,
    timeout: float = TIMEOUT,
    row_limit: int = ROW_LIMIT,
    bound: float | None = None,
) -> tuple[bytes, str]:
    """Ask one server for the stars of one survey in a field.

    Parameters
    ----------
    survey : Survey
    ra, dec, radius : float
        Circle [deg].
    server : str
        Host name, or an address with ``http://`` for a local mirror.
    timeout : float
        Seconds for the whole answer.
    row_limit : int
    bound : float, optional
        Only stars brighter than this.

    Returns
    -------
    answer : bytes
        The VOTable as it came.
    payload : str
        The query.

    Raises
    ------
    AnswerError
        No connection, a time-out, an HTTP error, or something that is not a whole VOTable.
    """
    import requests
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    from lib.reference.session import OtherHost, TimeLimitReached, TooLong, last_cause, time_limit

    what = f"{server}: {survey.table} ({survey.name})"
    client = _client(survey, server, timeout, row_limit, bound)
    centre = SkyCoord(ra, dec, unit="deg", frame="icrs")
    request = {"radius": radius * u.deg, "catalog": survey.table, "frame": "icrs", "cache": False}
    payload = client.query_region_async(centre, get_query_payload=True, **request)
    try:
        with time_limit(timeout):
            response = client.query_region_async(centre, **request)
    except (TimeLimitReached, requests.Timeout) as why:
        raise AnswerError(f"{what}: timed out ({why})", lasting=True) from why
    except (OtherHost, TooLong) as why:
        raise AnswerError(f"{what}: {why}", lasting=True) from why
    except requests.RequestException as why:
        raise AnswerError(f"{what}: no answer ({last_cause(why)})", lasting=True) from why
    return check_answer(response, what), payload


def check_answer(response: Any, what: str) -> bytes:
    """Return the content of an HTTP response; raise `AnswerError` unless it is a whole VOTable."""
    if response.status_code != 200:
        raise AnswerError(f"{what}: HTTP {response.status_code} {response.reason}")
    answer = response.content
    if not answer.strip():
        raise AnswerError(f"{what}: an answer without content")
    if b"<VOTABLE" not in answer[:2000]:
        raise AnswerError(f"{what}: not a VOTable but {answer[:60]!r}")
    if b"</VOTABLE>" not in answer[-2000:]:
        raise AnswerError(f"{what}: the answer breaks off after {len(answer)} bytes")
    return answer


# --- the cache --------------------------------------------------------------------------------

_MARK = b"<!-- autoproc "


def cache_name(survey: Survey, ra: float, dec: float, radius: float) -> str:
    """Return the name of the file of an answer: catalogue and circle."""
    return f"{survey.table.replace('/', '_')}_{ra:08.4f}{dec:+08.4f}_r{radius:.3f}.vot.gz"


def find_cached(
    cache: str | Path, survey: Survey, ra: float, dec: float, radius: float
) -> Path | None:
    """Return the path of the smallest cached answer that holds a whole circle, or None."""
    name = re.compile(
        re.escape(survey.table.replace("/", "_"))
        + r"_(\d{3}\.\d{4})([+-]\d{2}\.\d{4})_r(\d+\.\d{3})\.vot\.gz"
    )
    fit = []
    for path in sorted(Path(cache).glob(f"{survey.table.replace('/', '_')}_*.vot.gz")):
        if found := name.fullmatch(path.name):
            centre_ra, centre_dec, around = map(float, found.groups())
            # 0.1 arcsec: the name rounds the centre
            if separation(ra, dec, centre_ra, centre_dec) + radius <= around + 3e-5:
                fit.append((around, path))
    return min(fit)[1] if fit else None


def save_answer(path: str | Path, answer: bytes, record: Record) -> Record:
    """Write an answer and its record (query, date, checksum) as one file, whole or not at all.

    The record is a comment behind the VOTable, so the file remains one for any reader.
    """
    record = record | {"sha256": hashlib.sha256(answer).hexdigest()}
    text = json.dumps(record).replace("-", "\\u002d")  # a comment must not hold two hyphens
    with atomic_path(path) as beside:
        content = answer + b"\n" + _MARK + text.encode() + b" -->\n"
        beside.write_bytes(gzip.compress(content, mtime=0))
    return record


def load_answer(path: str | Path) -> tuple[bytes, Record]:
    """Read an answer from the cache.

    Returns
    -------
    answer : bytes
    record : dict

    Raises
    ------
    AnswerError
        The file is broken: unreadable, without its record, or not what the checksum says.
    """
    try:
        content = gzip.decompress(Path(path).read_bytes())
        answer, mark, tail = content.rpartition(b"\n" + _MARK)
        record = json.loads(tail.rpartition(b" -->")[0])
    except (OSError, EOFError, ValueError, zlib.error) as why:
        raise AnswerError(f"{path}: broken cache file ({why})") from why
    if not mark or record.get("sha256") != hashlib.sha256(answer).hexdigest():
        raise AnswerError(f"{path}: broken cache file (its checksum is another)")
    return answer, record


@dataclass
class Service:
    """Source of answers: the cache, then the servers in turn.

    Parameters
    ----------
    cache : path-like
    servers : sequence of str
        Empty for the cache alone.
    timeout : float
        Seconds an answer may take.
    row_limit : int
        See `ROW_LIMIT`.
    failed : set of str
        Servers that are not asked again.
    unavailable : dict
        Catalogue and circle without a usable answer, to the reason.
    """

    cache: str | Path
    servers: Sequence[str] = ReferenceSettings.servers
    timeout: float = TIMEOUT
    row_limit: int = ROW_LIMIT
    failed: set[str] = field(default_factory=set)
    unavailable: dict[tuple, str] = field(default_factory=dict)

    def get(self, survey: Survey, ra: float, dec: float, radius: float) -> tuple[Table, Record]:
        """Return the stars of a catalogue in a circle, and the record of the answer.

        Returns
        -------
        table : astropy.table.Table
            Table from the catalogue's `standardise`; without rows where it has no stars in the
            field.
        record : dict

        Raises
        ------
        ReferenceUnavailable
            Neither the cache nor any server has a usable answer; the message lists why.
        """
        circle = (survey.table, ra, dec, radius)
        if circle in self.unavailable:
            raise ReferenceUnavailable(self.unavailable[circle])
        said: list[str] = []
        path = find_cached(self.cache, survey, ra, dec, radius)
        if path is not None:
            try:
                answer, record = load_answer(path)
                return self._table(survey, answer, record, ra, dec, radius), record
            except AnswerError as why:
                said.append(str(why))
                log.warning("%s", why)
        if not self.servers:
            said.append(
                f"{survey.table} ({survey.name}): the cache {self.cache} has no answer that covers "
                f"{radius:.3f} deg around {ra:.4f} {dec:+.4f}"
            )
        # a wider circle around a rounded centre serves other nights' pointings too
        wide = math.ceil((radius + 0.02) * 20) / 20
        centre = round(ra, 2) % 360.0, round(dec, 2)
        for server in self.servers:
            if server in self.failed:
                continue
            try:
                answer, record = self._query(survey, *centre, wide, server)
                table = self._table(survey, answer, record, ra, dec, radius)
            except AnswerError as why:
                log.warning("%s", why)
                said.append(str(why))
                if why.lasting:
                    self.failed.add(server)
                continue
            path = Path(self.cache) / cache_name(survey, *centre, wide)
            try:
                record = save_answer(path, answer, record)
            except OSError as why:
                log.warning("%s: not kept in the cache: %s", survey.name, why)
            log.info("%s: %d rows from %s", survey.name, record["rows"], server)
            return table, record
        if not said:
            said = [NO_SERVER]
        self.unavailable[circle] = "; ".join(said)
        raise ReferenceUnavailable(self.unavailable[circle])

    def _query(
        self, survey: Survey, ra: float, dec: float, radius: float, server: str
    ) -> tuple[bytes, Record]:
        """Return an answer that is not cut off, brighter and brighter where the field is rich."""
        for bound in (None, 20.0, 18.0, 16.0, 14.0):
            answer, payload = query(
                survey, ra, dec, radius, server,
                timeout=self.timeout, row_limit=self.row_limit, bound=bound,
            )  # fmt: skip
            raw = parse(survey, answer, server)
            rows = len(raw.get("ra", ()))
            if rows < self.row_limit:
                break
            log.warning("%s: %s: cut off at %d rows, asked again", server, survey.table, rows)
        else:
            raise AnswerError(f"{server}: {survey.table}: over {self.row_limit} stars below mag 14")
        if rows == 0 and survey.whole:
            raise AnswerError(
                f"{server}: {survey.table} ({survey.name}): an empty answer, and the catalogue "
                f"covers the whole sky (no '{survey.columns['ra'].names[0]}')"
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        record = {
            "catalogue": survey.name, "table": survey.table, "server": server, "query": payload,
            "date": now, "rows": rows, "ra": ra, "dec": dec, "radius": radius,
        }  # fmt: skip
        return answer, record

    def _table(
        self, survey: Survey, answer: bytes, record: Record, ra: float, dec: float, radius: float
    ) -> Table:
        """Return the stars of an answer within a circle."""
        raw = parse(survey, answer, record["server"])
        if not raw:
            return blank_table(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            table = survey.standardise(raw)
        table = table[np.isfinite(table["ra"]) & np.isfinite(table["dec"])]
        return cut_out(table, ra, dec, radius)
