"""A small server that speaks VizieR's protocol on 127.0.0.1, with faults at will.

It answers ``POST /viz-bin/votable`` with a body of ``key=value`` lines, as astroquery sends
them, from a synthetic sky, and keeps what it was asked. Columns carry VizieR's names and units.
"""

import re
import time
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from loopback import LoopbackServer, QuietHandler

EPOCH = {
    "I/355/gaiadr3": 2016.0,
    "I/360/syntphot": 2016.0,
    "II/246/out": 1999.5,
    "V/154/sdss16": 2005.0,
    "II/349/ps1": 2012.5,
    "II/379/smssdr4": 2017.0,
    "II/336/apass9": 2012.0,
    "I/284/out": 2000.0,
}
VEGA = {"B": -0.12, "V": -0.01, "R": 0.18, "I": 0.42}  # AB - Vega


class Sky:
    """Stars with positions at 2016.0, proper motions, and magnitudes on one stellar locus.

    Parameters
    ----------
    ra, dec, radius : float
        Circle [deg].
    n : int
    seed : int
    """

    def __init__(self, ra=150.0, dec=2.0, radius=0.3, n=300, seed=1):
        rng = np.random.default_rng(seed)
        r, angle = radius * np.sqrt(rng.uniform(size=n)), rng.uniform(0, 2 * np.pi, n)
        self.dec = dec + r * np.sin(angle)
        self.ra = (ra + r * np.cos(angle) / np.cos(np.radians(self.dec))) % 360
        self.pmra = rng.normal(0, 10, n)
        self.pmdec = rng.normal(0, 10, n)
        self.pmra[0], self.pmdec[0] = 600.0, -400.0  # one fast star
        gr = rng.uniform(0.2, 1.2, n)
        ri, iz = 0.35 * gr, 0.2 * gr
        g = rng.uniform(13.0, 20.0, n)
        m = {"g": g, "r": g - gr, "i": g - gr - ri, "z": g - gr - ri - iz, "u": g + 0.9 + gr}
        # AB; the Johnson-Cousins ones by Lupton (2005), y and Pan-STARRS by Tonry et al. (2012)
        m["B"] = g + 0.2271 + 0.3130 * gr + VEGA["B"]
        m["V"] = g - 0.0038 - 0.5784 * gr + VEGA["V"]
        m["R"] = m["r"] - 0.1439 - 0.2936 * ri + VEGA["R"]
        m["I"] = m["r"] - 0.3820 - 1.2444 * ri + VEGA["I"]
        m["y"] = m["z"] + 0.031 - 0.106 * gr + 0.011 * gr**2
        m["J"] = m["z"] - 1.0 - 0.5 * gr
        m["H"], m["K"] = m["J"] - 0.5, m["J"] - 0.6
        self._survey(m)

    @classmethod
    def of_stars(cls, stars, epoch):
        """Return the sky of a table of stars.

        Parameters
        ----------
        stars : astropy.table.Table
            ra, dec [deg], pmra, pmdec [mas/yr] and the bands, as `simulate.make_field` makes it.
        epoch : float
            Of the positions [yr].
        """
        sky = cls.__new__(cls)
        values = {name: np.asarray(stars[name], float) for name in stars.colnames}
        sky.pmra, sky.pmdec = values["pmra"], values["pmdec"]
        sky.ra, sky.dec = values["ra"], values["dec"]
        sky.ra, sky.dec = sky.at(2 * 2016.0 - epoch)
        sky._survey({band: values[band] for band in "ugrizyBVRIJHK"})
        return sky

    def _survey(self, m):
        """Set the magnitudes of the reference bands, and those of surveys with their own bands."""
        g, gr = m["g"], m["g"] - m["r"]
        self.mag = m
        self.ps1 = {
            "g": g - 0.011 - 0.125 * gr - 0.015 * gr**2,
            "r": m["r"] + 0.001 - 0.006 * gr - 0.002 * gr**2,
            "i": m["i"] + 0.004 - 0.014 * gr + 0.001 * gr**2,
            "z": m["z"] - 0.013 + 0.040 * gr - 0.001 * gr**2,
            "y": m["y"],
        }
        self.skymapper = {b: m[b] + 0.05 - {"g": 0.25, "r": 0.02, "i": 0.01, "z": 0.03}[b] * gr
                          for b in "griz"}  # fmt: skip
        self.extra = {}
        """Columns that replace those of a catalogue: {(table, column): values}."""

    def at(self, epoch):
        """Return the positions [deg] at an epoch [yr]."""
        years = epoch - 2016.0
        dec = self.dec + self.pmdec * years / 3.6e6
        return self.ra + self.pmra * years / 3.6e6 / np.cos(np.radians(self.dec)), dec

    def table(self, name):
        """Return a catalogue: dict of column to (values, unit, format), and which stars it has."""
        ra, dec = self.at(EPOCH[name])
        m, n = self.mag, len(self.ra)
        one = np.ones(n)

        def mags(bands, form, source, error=0.01, vega=()):
            columns = {}
            for band in bands:
                values = source[band] - (VEGA[band] if band in vega else 0)
                columns[form.replace("{}", band)] = (values, "mag", "%.4f")
                columns["e_" + form.replace("{}", band)] = (error * one, "mag", "%.4f")
            return columns

        if name == "I/355/gaiadr3":
            have = np.full(n, True)
            columns = {
                "RA_ICRS": (ra, "deg", "%.11f"), "DE_ICRS": (dec, "deg", "%.11f"),
                "e_RA_ICRS": (0.05 * one, "mas", "%.4f"), "e_DE_ICRS": (0.05 * one, "mas", "%.4f"),
                "pmRA": (self.pmra, "mas/yr", "%.3f"), "pmDE": (self.pmdec, "mas/yr", "%.3f"),
                "e_pmRA": (0.02 * one, "mas/yr", "%.3f"), "e_pmDE": (0.02 * one, "mas/yr", "%.3f"),
                "RUWE": (one, "", "%.3f"), "Dup": (0 * one, "", "%d"),
                "Gmag": (m["r"], "mag", "%.6f"),
            }  # fmt: skip
        elif name == "I/360/syntphot":
            have = m["g"] < 17.0
            columns = {"RA_ICRS": (ra, "deg", "%.11f"), "DE_ICRS": (dec, "deg", "%.11f"),
                       "E(BP/RP)corr": (0 * one, "", "%.4f")}  # fmt: skip
            for band in "ugrizyBVRI":
                values = m[band] - VEGA.get(band, 0)
                columns[f"{band}mag"] = (values, "mag", "%.6f")
                columns[f"F{band}"] = (one, "W/m2/nm", "%.5f")
                columns[f"e_F{band}"] = (0.005 * one, "W/m2/nm", "%.5f")
                columns[f"{band}Flag"] = (one, "", "%d")
        elif name == "II/246/out":
            have = m["J"] < 16.5
            columns = {"RAJ2000": (ra, "deg", "%.6f"), "DEJ2000": (dec, "deg", "%.6f"),
                       "errMaj": (0.07 * one, "arcsec", "%.2f"),
                       "errMin": (0.06 * one, "arcsec", "%.2f"),
                       "Qflg": (np.full(n, "AAA"), "", "%s")}  # fmt: skip
            columns |= mags("JHK", "{}mag", m, 0.03)
        elif name == "V/154/sdss16":
            have = np.full(n, True)
            columns = {"RA_ICRS": (ra, "deg", "%.8f"), "DE_ICRS": (dec, "deg", "%.8f"),
                       "e_RA_ICRS": (0.05 * one, "arcsec", "%.4f"),
                       "e_DE_ICRS": (0.05 * one, "arcsec", "%.4f"),
                       "mode": (one, "", "%d"), "class": (6 * one, "", "%d")}  # fmt: skip
            sdss = m | {"u": m["u"] + 0.04, "z": m["z"] - 0.02}
            columns |= mags("ugriz", "{}pmag", sdss)
        elif name == "II/349/ps1":
            have = np.full(n, True)
            columns = {"RAJ2000": (ra, "deg", "%.8f"), "DEJ2000": (dec, "deg", "%.8f"),
                       "e_RAJ2000": (0.01 * one, "arcsec", "%.4f"),
                       "e_DEJ2000": (0.01 * one, "arcsec", "%.4f"),
                       "iKmag": (self.ps1["i"], "mag", "%.4f")}  # fmt: skip
            columns |= mags("grizy", "{}mag", self.ps1)
        elif name == "II/379/smssdr4":
            have = np.full(n, True)
            columns = {"RAICRS": (ra, "deg", "%.8f"), "DEICRS": (dec, "deg", "%.8f"),
                       "e_RAICRS": (80 * one, "mas", "%.1f"),
                       "e_DEICRS": (80 * one, "mas", "%.1f"),
                       "flags": (0 * one, "", "%d")}  # fmt: skip
            columns |= mags("griz", "{}PSF", self.skymapper)
        elif name == "II/336/apass9":
            have = m["V"] < 17
            columns = {"RAJ2000": (ra, "deg", "%.6f"), "DEJ2000": (dec, "deg", "%.6f"),
                       "e_RAJ2000": (0.2 * one, "arcsec", "%.3f"),
                       "e_DEJ2000": (0.2 * one, "arcsec", "%.3f")}  # fmt: skip
            columns |= mags("BV", "{}mag", m, 0.05, vega="BV")
            columns |= mags("gri", "{}'mag", m, 0.05)
        elif name == "I/284/out":
            have = np.full(n, True)
            columns = {"RAJ2000": (ra, "deg", "%.6f"), "DEJ2000": (dec, "deg", "%.6f"),
                       "e_RAJ2000": (200 * one, "mas", "%d"), "e_DEJ2000": (200 * one, "mas", "%d"),
                       "pmRA": (np.round(self.pmra), "mas/yr", "%d"),
                       "pmDE": (np.round(self.pmdec), "mas/yr", "%d")}  # fmt: skip
            for label, band in (("B1", "B"), ("R1", "R"), ("B2", "B"), ("R2", "R"), ("I", "I")):
                columns[f"{label}mag"] = (m[band] - VEGA[band], "mag", "%.2f")
        else:
            raise KeyError(name)
        for (table, column), values in self.extra.items():
            if table == name:
                columns[column] = (values, *columns[column][1:])
        return columns, have


def votable(name, columns, rows, ending=True):
    """Return a VOTable as VizieR writes it: masked values are empty cells."""
    fields = []
    for column, (_, unit, form) in columns.items():
        kind = {"s": 'datatype="char" arraysize="*"', "d": 'datatype="int"'}.get(
            form[-1], 'datatype="double"'
        )
        unit = f" unit={quoteattr(unit)}" if unit else ""
        fields.append(f"    <FIELD name={quoteattr(column)} {kind}{unit}/>")
    lines = []
    for k in rows:
        cells = []
        for values, _, form in columns.values():
            blank = form[-1] != "s" and not np.isfinite(values[k])
            cells.append("<TD/>" if blank else f"<TD>{escape(form % values[k])}</TD>")
        lines.append(f"<TR>{''.join(cells)}</TR>")
    data = "\n".join(lines)
    body = f"<DATA><TABLEDATA>\n{data}\n</TABLEDATA></DATA>" if lines else (
        "<!--  EMPTY result, no DATA part  -->"
    )  # fmt: skip
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<VOTABLE version="1.4" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xmlns="http://www.ivoa.net/xml/VOTable/v1.3"
  xsi:schemaLocation="http://www.ivoa.net/xml/VOTable/v1.3 http://www.ivoa.net/xml/VOTable/v1.3">
 <DESCRIPTION>
   VizieR Astronomical Server 127.0.0.1
 </DESCRIPTION>
<INFO ID="VERSION" name="votable-version" value="1.99+ (14-Oct-2013)"/>
<INFO ID="Ref" name="-ref" value="VOTx25520"/>
<RESOURCE ID="yCat_1" name={quoteattr(name.rpartition("/")[0])}>
  <COOSYS ID="ICRS" system="ICRS"/>
  <TABLE ID={quoteattr(name.replace("/", "_"))} name={quoteattr(name)}>
{chr(10).join(fields)}
{body}
  </TABLE>
</RESOURCE>
{"</VOTABLE>" if ending else ""}
""".encode()


class VizierServer(LoopbackServer):
    """The server, started in a thread; use it in a ``with`` block.

    Attributes
    ----------
    faults : dict
        Catalogue (or ``"*"``) to one of: ``http500 garbage nothing empty truncated cut slow
        trickle error``, or ``("rename", old, new)``, ``("unit", column, unit)``,
        ``("blank", column)``.
    requests : list of dict
        What was asked, oldest first.
    address : str
        ``http://127.0.0.1:port``
    """

    def __init__(self, sky=None, faults=None, delay=5.0):
        self.sky = sky or Sky()
        self.faults = dict(faults or {})
        self.delay = delay
        self.requests = []
        outer = self

        class Handler(QuietHandler):
            def do_POST(self):  # noqa: N802
                length = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(length).decode()
                asked = dict(line.partition("=")[::2] for line in body.splitlines())
                outer.requests.append(asked | {"path": self.path})
                try:
                    outer.respond(self, asked)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client gave up, as it should

        self.listen(Handler)

    def asked(self, table):
        """Return the requests for one catalogue."""
        return [request for request in self.requests if request.get("-source") == table]

    def select(self, asked):
        """Return columns asked for and the rows within the circle and the bounds."""
        name = asked["-source"]
        everything, have = self.sky.table(name)
        ra, dec = map(float, re.fullmatch(r"(\d+\.\d+)([+-]\d+\.\d+)", asked["-c"]).groups())
        radius = float(asked["-c.rd"])
        lon, lat = (name_values[0] for name_values in list(everything.values())[:2])
        across = ((lon - ra + 180) % 360 - 180) * np.cos(np.radians(dec))
        rows = have & (np.hypot(across, lat - dec) <= radius)
        for column, (values, _, _) in everything.items():
            if asked.get(column, "").startswith("<"):
                rows &= values < float(asked[column][1:])
        rows = np.flatnonzero(rows)
        if asked["-out.max"] != "unlimited":
            rows = rows[: int(asked["-out.max"])]
        wanted = asked["-out"].split(",")
        # VizieR passes over names it does not know
        return {column: everything[column] for column in wanted if column in everything}, rows

    def respond(self, handler, asked):
        """Answer one request, with its fault."""
        name = asked.get("-source", "")
        fault = self.faults.get(name, self.faults.get("*"))
        if fault == "http500" or name not in EPOCH:
            handler.send_error(500, "Internal Server Error")
            return
        columns, rows = self.select(asked)
        if isinstance(fault, tuple):
            kind, column, *rest = fault
            if kind == "rename":
                columns = {rest[0] if c == column else c: v for c, v in columns.items()}
            elif kind == "unit":
                columns[column] = (columns[column][0], rest[0], columns[column][2])
            elif kind == "blank":
                columns[column] = (np.full(len(self.sky.ra), np.nan), *columns[column][1:])
        answer = votable(name, columns, [] if fault == "empty" else rows)
        if fault == "garbage":
            answer = b"<html><body>The service is being maintained.</body></html>"
        elif fault == "nothing":
            answer = b""
        elif fault == "truncated":
            answer = answer[: len(answer) // 2]
        elif fault == "error":
            answer = answer.split(b"<RESOURCE")[0] + (
                b'<INFO ID="Errors" name="Error" value="Catalogue not available"/>\n</VOTABLE>\n'
            )
        handler.send_response(200)
        handler.send_header("Content-Type", "text/xml")
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        if fault == "slow":
            self.stopping.wait(self.delay)
        if fault == "cut":  # the connection breaks before the promised length
            handler.wfile.write(answer[: len(answer) // 2])
            handler.close_connection = True
            return
        if fault == "trickle":  # a byte now and then, so no single wait is long
            start = time.monotonic()
            for k in range(len(answer)):
                handler.wfile.write(answer[k : k + 1])
                handler.wfile.flush()
                if self.stopping.wait(0.05) or time.monotonic() - start > self.delay:
                    return
        handler.wfile.write(answer)
