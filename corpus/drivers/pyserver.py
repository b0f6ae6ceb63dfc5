"""An HTTP server with a thread for each connection, which answers with normalised paths.

    python pyserver.py PORT
"""

import http.server
import os.path
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    # Connections stay open.
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        # No line of a request can hold a NUL, so the probe has a path of its own.
        path = "/foo\0bar" if self.path == "/nul" else "/srv" + self.path
        body = repr(os.path.normpath(path)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
