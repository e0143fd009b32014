"""The dialect of GCS that obstore speaks (XML), in front of fake-gcs-server, which lacks the writing half of it.

Objects, generations, conditions on them, and listings are fake-gcs-server's. What is done here: a PUT becomes an upload
of its JSON API, a copy and an upload in parts as well, ranges under If-Match are refused where the ETag is another one,
and errors have the codes that GCS documents.
"""

import http.client
import itertools
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

GENERATION = "x-goog-generation"
_BOUNDARY = "0f1e2d3c4b5a"


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


def refused(status: int, code: str) -> Answer:
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    return Answer(status, {"Content-Type": "application/xml"}, text.encode())


@contextmanager
def gcs_dialect(server: str) -> Iterator[str]:
    """Run it in front of a fake-gcs-server; yields its address."""
    target, uploads, numbers = urlsplit(server).netloc, dict[str, dict[int, bytes]](), itertools.count(1)

    def ask(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        upstream = http.client.HTTPConnection(target, timeout=60)
        upstream.request(method, path, body, dict(headers or {}))
        answer = upstream.getresponse()
        found = Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        upstream.close()
        return found

    def told(answer: Answer, bucket: str) -> Answer:
        """Return an answer of the JSON API as one of the XML API."""
        if answer.status == 412:
            return refused(412, "PreconditionFailed")
        if answer.status == 404:
            is_there = ask("GET", f"/storage/v1/b/{bucket}").status == 200
            return refused(404, "NoSuchKey" if is_there else "NoSuchBucket")
        if answer.status >= 400:
            return answer
        meta = json.loads(answer.body)
        meta = meta.get("resource", meta)
        return Answer(200, {"ETag": f'"{meta["etag"]}"', GENERATION: meta["generation"]}, b"")

    def upload(bucket: str, key: str, content: bytes, generation: str | None) -> Answer:
        condition = f"&ifGenerationMatch={generation}" if generation is not None else ""
        name = json.dumps({"name": key})
        head = f"--{_BOUNDARY}\r\nContent-Type: application/json\r\n\r\n{name}\r\n--{_BOUNDARY}\r\n"
        head += "Content-Type: application/octet-stream\r\n\r\n"
        body = head.encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()
        kind = {"Content-Type": f"multipart/related; boundary={_BOUNDARY}"}
        path = f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart{condition}"
        return told(ask("POST", path, body, kind), bucket)

    def in_parts(method: str, where: tuple[str, str], query: Mapping[str, list[str]], content: bytes) -> Answer:
        bucket, key = where
        if method == "POST" and "uploads" in query:
            name = f"upload-{next(numbers)}"
            uploads[name] = {}
            names = f"<Bucket>{bucket}</Bucket><Key>x</Key><UploadId>{name}</UploadId>"
            return Answer(200, {}, f"<InitiateMultipartUploadResult>{names}</InitiateMultipartUploadResult>".encode())
        (name,) = query["uploadId"]
        if method == "PUT":
            number = int(query["partNumber"][0])
            uploads[name][number] = content
            return Answer(200, {"ETag": f'"{number}"'}, b"")
        parts = uploads.pop(name)
        if method == "DELETE":
            return Answer(204, {}, b"")
        done = upload(bucket, key, b"".join(parts[number] for number in sorted(parts)), None)
        if done.status != 200:
            return done
        etag = done.headers["ETag"].strip('"')
        text = f"<ETag>&quot;{etag}&quot;</ETag><Bucket>{bucket}</Bucket><Key>x</Key><Location>x</Location>"
        return Answer(
            200, done.headers, f"<CompleteMultipartUploadResult>{text}</CompleteMultipartUploadResult>".encode()
        )

    def answer_to(method: str, path: str, headers: Mapping[str, str], content: bytes) -> Answer:
        place = urlsplit(path)
        bucket, _, key = unquote(place.path.lstrip("/").replace("/", "\0", 1)).partition("\0")
        query = parse_qs(place.query, keep_blank_values=True)
        if "uploads" in query or "uploadId" in query:
            return in_parts(method, (bucket, key), query, content)
        if method == "PUT" and (source := headers.get("x-goog-copy-source")):
            from_bucket, _, from_key = unquote(source).lstrip("/").partition("/")
            paths = (f"b/{b}/o/{quote(k, safe='')}" for b, k in ((from_bucket, from_key), (bucket, key)))
            return told(ask("POST", f"/storage/v1/{'/rewriteTo/'.join(paths)}"), bucket)
        if method == "PUT":
            return upload(bucket, key, content, headers.get("x-goog-if-generation-match"))
        if method == "DELETE":
            found = ask("DELETE", f"/storage/v1/b/{bucket}/o/{quote(key, safe='')}")
            return Answer(204, {}, b"") if found.status < 300 else told(found, bucket)
        query_too = f"?{place.query}" if place.query else ""
        passed = {name: headers[name] for name in ("range", "if-none-match") if name in headers}
        found = ask(method, f"/{bucket}{'/' if key else ''}{quote(key)}{query_too}", b"", passed)
        if found.status == 404 or b"no bucket named" in found.body:
            return told(found._replace(status=404), bucket)
        wanted = headers.get("if-match")
        return refused(412, "PreconditionFailed") if wanted and found.headers.get("etag") != wanted else found

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # head and body in one piece

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle_any(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = answer_to(self.command, self.path, headers, content)
            self.send_response_only(answer.status)
            names = {name.lower() for name in answer.headers}
            for name, value in answer.headers.items():
                if name.lower() not in ("connection", "transfer-encoding"):
                    self.send_header(name, value)
            if "content-length" not in names:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients hang up where they wanted a part."""

    front = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=front.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{front.server_port}"
    finally:
        front.shutdown()
        front.server_close()
        thread.join()
