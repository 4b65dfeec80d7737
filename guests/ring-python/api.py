"""Requests to the Kubernetes API. A guest has no sockets, and so none of Python's HTTP libraries: this is all that it takes instead."""

import json

from componentize_py_types import Err
from wit_world.imports import outgoing_handler
from wit_world.imports import wasi_http_types as http

CHUNK = 4096  # bytes; the most that `blocking_write_and_flush` takes at once
METHODS = {"GET": http.Method_Get(), "POST": http.Method_Post(), "PUT": http.Method_Put()}


def send(method, path, body=None):
    """The status code and the object of the answer. Raises `OSError` when there is none."""
    headers = http.Fields.from_list([("content-type", b"application/json")])
    request = http.OutgoingRequest(headers)
    request.set_method(METHODS[method])
    request.set_scheme(http.Scheme_Https())
    request.set_authority("kubernetes.default.svc")
    request.set_path_with_query(path)
    outgoing = request.body()
    try:
        with outgoing_handler.handle(request, None) as future:
            data = b"" if body is None else json.dumps(body).encode()
            with outgoing.write() as stream:
                for start in range(0, len(data), CHUNK):
                    stream.blocking_write_and_flush(data[start : start + CHUNK])
            http.OutgoingBody.finish(outgoing, None)
            with future.subscribe() as ready:
                ready.block()
            answer = future.get().value
        if isinstance(answer, Err):
            raise answer
        with answer.value as response, response.consume() as incoming, incoming.stream() as stream:
            return response.status(), json.loads(read(stream))
    except Err as error:
        raise OSError(f"no answer to `{method} {path}`: {error.value}") from error


def read(stream):
    parts = []
    try:
        while True:
            parts.append(stream.blocking_read(1 << 16))
    except Err as end:
        if isinstance(end.value, http.streams.StreamError_Closed):
            return b"".join(parts)
        raise
