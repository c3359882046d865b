"""Receives callbacks, checks each with the official library of Standard Webhooks, and tells what came.

    receiver.py ANSWERS SECRET...

Prints the port it listens on, then a line of JSON for each call. ANSWERS is a file that holds the status to answer with;
without it, 204. Every SECRET must verify a call by itself.
"""

import http.server
import json
import sys
import threading

from openai import OpenAI
from standardwebhooks import Webhook

answers, secrets = sys.argv[1], sys.argv[2:]
out = threading.Lock()


def status():
    try:
        with open(answers) as file:
            return int(file.read().strip() or 204)
    except FileNotFoundError:
        return 204


def verified(body, headers):
    for secret in secrets:
        Webhook(secret).verify(body, dict(headers))
    # The official client of OpenAI takes the same form, as what OpenAI itself would send.
    if json.loads(body)["type"].startswith("batch."):
        client = OpenAI(api_key="unused", webhook_secret=secrets[0])
        event = client.webhooks.unwrap(body, dict(headers))
        return type(event).__name__
    return None


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        line = {"id": self.headers["webhook-id"], "path": self.path, "status": status()}
        try:
            line["event"] = verified(body, self.headers)
            line["body"] = json.loads(body)
        except Exception as error:
            line["refused"] = repr(error)
        with out:
            print(json.dumps(line), flush=True)
        self.send_response(line["status"])
        if 300 <= line["status"] < 400:
            self.send_header("location", "/elsewhere")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_address[1], flush=True)
server.serve_forever()
