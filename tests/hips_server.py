"""A small server that speaks hips2fits on 127.0.0.1, with faults at will.

It answers ``GET /hips-image-services/hips2fits?hips=…&wcs=…&format=fits`` with an image of a
synthetic sky on the grid that was asked for, as the service does: the value of the survey at the
centre of each pixel, which is the flux in a pixel of the survey, however large those asked for are.
"""

import io
import json
import time
from urllib.parse import parse_qs, urlsplit

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from loopback import LoopbackServer, QuietHandler

PS1_SOFT = 1.0857362


class HipsServer(LoopbackServer):
    """The server, started in a thread; use it in a ``with`` block.

    Parameters
    ----------
    stars : ndarray, shape (n, 3)
        ra, dec [deg] and flux.
    pixel : float
        Pixel of the survey [arcsec].
    fwhm : float
        Of the stars [arcsec].
    asinh : bool
        Whether the HiPS holds the asinh magnitudes of Pan-STARRS1.
    south : float
        Below this declination the survey has no data.
    fault : str or None
        One of ``json html 404 empty truncated cut trickle endless other shifted blank garbage``.
    """

    def __init__(self, stars, pixel, fwhm=1.3, asinh=False, south=-90.0, fault=None, delay=3.0):
        self.stars, self.pixel, self.sigma = np.asarray(stars), pixel, fwhm / 2.3548
        self.asinh, self.south, self.fault, self.delay = asinh, south, fault, delay
        self.requests = []
        outer = self

        class Handler(QuietHandler):
            def do_GET(self):  # noqa: N802
                asked = urlsplit(self.path)
                query = {key: value[0] for key, value in parse_qs(asked.query).items()}
                outer.requests.append(query | {"path": asked.path})
                try:
                    outer.respond(self, query)
                except OSError:
                    self.close_connection = True

        self.listen(Handler)

    def image(self, header):
        """Return the values of the survey on a grid: flux in one of its own pixels."""
        wcs = WCS(header)
        ny, nx = header["NAXIS2"], header["NAXIS1"]
        values = np.zeros((ny, nx))
        scale = abs(header["CDELT1"]) * 3600.0
        x, y = wcs.wcs_world2pix(self.stars[:, 0], self.stars[:, 1], 0)
        peak = self.stars[:, 2] * self.pixel**2 / (2 * np.pi * self.sigma**2)
        reach = int(6 * self.sigma / scale) + 2
        for one, two, height in zip(x, y, peak, strict=True):
            if not (-reach < one < nx + reach and -reach < two < ny + reach):
                continue
            left, low = max(int(one) - reach, 0), max(int(two) - reach, 0)
            yy, xx = np.mgrid[low : min(int(two) + reach, ny), left : min(int(one) + reach, nx)]
            r2 = ((xx - one) ** 2 + (yy - two) ** 2) * scale**2
            values[yy, xx] += height * np.exp(-r2 / (2 * self.sigma**2))
        dec = wcs.wcs_pix2world(np.zeros(ny), np.arange(ny), 0)[1]
        values[dec < self.south] = np.nan
        return PS1_SOFT * np.arcsinh(values) if self.asinh else values

    def answer(self, query):
        """Return the FITS file of a query."""
        header = json.loads(query["wcs"])
        header = fits.Header(header)
        if self.fault == "shifted":
            header["CRVAL2"] += 0.5
        values = self.image(header)
        if self.fault == "other":
            values = values[:, :-7]
        if self.fault == "blank":
            values[:] = np.nan
        cards = fits.Header([card for card in header.cards if not card.keyword.startswith("NAXIS")])
        content = io.BytesIO()
        fits.PrimaryHDU(values.astype(np.float32), cards).writeto(content)
        return content.getvalue()

    def respond(self, handler, query):
        """Answer one request, with its fault."""
        if self.fault == "json":
            told = {"title": "Bad request", "description": f"No HiPS {query['hips']}"}
            send(handler, json.dumps(told).encode(), 400, "application/json")
        elif self.fault == "404" or handler.path.split("?")[0] != "/hips-image-services/hips2fits":
            handler.send_error(404, "Not Found")
        elif self.fault == "html":
            send(handler, b"<html><body>The service is being maintained.</body></html>")
        elif self.fault == "empty":
            send(handler, b"")
        elif self.fault == "garbage":
            send(handler, b"SIMPLE  =                    T" + b"\xff" * 9000)
        elif self.fault == "endless":
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(self.answer(query))
            while not self.stopping.is_set():
                handler.wfile.write(b"\0" * 100_000)
        else:
            self.send_image(handler, self.answer(query))

    def send_image(self, handler, content):
        """Send the image: whole, broken off, or a byte at a time."""
        if self.fault == "truncated":
            content = content[: len(content) // 2]
        handler.send_response(200)
        handler.send_header("Content-Type", "image/fits")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if self.fault == "cut":
            handler.wfile.write(content[: len(content) // 2])
            handler.close_connection = True
        elif self.fault == "trickle":
            start = time.monotonic()
            for byte in content:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                if self.stopping.wait(0.05) or time.monotonic() - start > self.delay:
                    return
        else:
            handler.wfile.write(content)


def send(handler, content, code=200, kind="text/html"):
    """Send an answer."""
    handler.send_response(code)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)
