# A server of tools for tests, in nothing but Python's own library: over its input and output, or with a
# port file as argument over HTTP.
import http.server
import json
import os
import sys
import time

TOOLS = [
    {"name": "add", "description": "Adds", "inputSchema": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    }},
    {"name": "draw", "description": "Draws", "inputSchema": {"type": "object"}},
    {"name": "fail", "description": "Fails", "inputSchema": {"type": "object"}},
    {"name": "hang", "description": "Hangs", "inputSchema": {"type": "object"}},
    {"name": "quit", "description": "Ends the server", "inputSchema": {"type": "object"}},
]


def text(text):
    return {"type": "text", "text": text}


def call(name, arguments):
    if name == "add":
        total = arguments["a"] + arguments["b"]
        return {"content": [], "structuredContent": {"sum": total}}
    if name == "draw":
        image = {"type": "image", "data": "AAAA", "mimeType": "image/png"}
        return {"content": [text("a cat"), image, text("x" * 10000)]}
    if name == "fail":
        return {"content": [text("it failed")], "isError": True}
    if name == "hang":
        time.sleep(3600)
    os._exit(0)


def answer(message):
    method, params = message["method"], message.get("params") or {}
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "test", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        return call(params["name"], params.get("arguments") or {})
    return {}


def reply(message):
    return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer(message)})


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = reply(message).encode() if "id" in message else b""
        self.send_response(200 if body else 202)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.send_error(405)

    do_DELETE = do_GET

    def log_message(self, *_):
        pass


if len(sys.argv) > 1:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with open(sys.argv[1] + ".new", "w") as file:
        file.write(str(server.server_port))
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    server.serve_forever()
for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        print(reply(message), flush=True)
