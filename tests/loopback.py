"""An HTTP server on 127.0.0.1 in a thread, for servers that speak as a service does."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class QuietHandler(BaseHTTPRequestHandler):
    """Answers requests without a log."""

    def log_message(self, *words):
        pass


class LoopbackServer:
    """The server; use it in a ``with`` block.

    Attributes
    ----------
    address : str
        ``http://127.0.0.1:port``
    stopping : threading.Event
        Set when it is to end: answers that take their time heed it.
    """

    def listen(self, handler):
        """Get a port; requests go to a class of handlers once the block is entered."""
        self.stopping = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *why):
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
