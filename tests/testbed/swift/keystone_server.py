"""Serves Keystone, run by its own Python: `python keystone_server.py` with KEYSTONE_HOST, KEYSTONE_PORT and
OS_KEYSTONE_CONFIG_DIR."""

import os
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from keystone.wsgi.api import application  # type: ignore[import-not-found]


class Server(ThreadingMixIn, WSGIServer):
    """A thread for each request."""

    daemon_threads = True


class Quiet(WSGIRequestHandler):
    """Says nothing."""

    def log_message(self, *_: object) -> None:
        pass


make_server(os.environ["KEYSTONE_HOST"], int(os.environ["KEYSTONE_PORT"]), application, Server, Quiet).serve_forever()
