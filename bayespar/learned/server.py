"""Any planner behind an OpenAI-compatible HTTP endpoint on this machine: to try an audit end to end, or to be asked."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import BayesparError
from ..history import Prompt
from ..planning.planner import check_probabilities
from ..simulate.replay import as_function
from ..validation import check_count
from ..world import Family
from .text import check_letters, read_question

_NEVER = -9999.0  # what OpenAI gives as the log of a probability of 0
_LARGEST_REQUEST = 2**24  # bytes


class Server:
    """A running server; a context manager that stops it.

    Attributes:
        url: where it listens, for ``base_url`` of a client.
        model: the name it answers to (it answers to any).
    """

    model = "planner"

    def __init__(self, handler: type[BaseHTTPRequestHandler], port: int):
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(planner: Any, family: Family, port: int = 0, *, key: Any = 0) -> Server:
    """Serve a planner as a chat model that answers :func:`bayespar.learned.text.question` with a letter.

    It listens on 127.0.0.1 only, answers ``POST /v1/chat/completions`` with ``top_logprobs`` letters, the likeliest
    first, and asks for no key.

    Args:
        planner: anything that :func:`as_planner` takes.
        family: whose words are read.
        port: 0 for any that is free.
        key: of a planner that draws at random, a JAX key or an int.

    Raises:
        InvalidPlannerError: no planner or key, or more subgoals than letters.
        BayesparError: the port is taken.

    Example:
        >>> with serve("planner", family) as server:  # doctest: +SKIP
        ...     audit(Endpoint(family, server.model, url=server.url), family)
    """
    check_letters(family)
    function = as_function(planner, family, key=key)
    if port != 0:
        check_count("port", port)
    try:
        return Server(_handler(function, family), port)
    except (OSError, OverflowError) as error:
        raise BayesparError(
            f"port = {port}: {getattr(error, 'strerror', None) or error}; give 0 for a free one"
        ) from None


def answer(function: Callable[[Prompt], Any], family: Family, request: dict[str, Any]) -> dict[str, Any]:
    """The chat completion that answers a request.

    Raises:
        BayesparError: the last message is not a question, or the planner does not answer it.
    """
    prompt = read_question(request["messages"][-1]["content"], family)
    probabilities = check_probabilities(function(prompt), family.num_subgoals)
    letters = check_letters(family)
    order = np.argsort(-probabilities, kind="stable")[: int(request.get("top_logprobs", 0))].tolist()

    def token(g: int) -> dict[str, Any]:
        p = float(probabilities[g])
        return {"token": letters[g], "logprob": math.log(p) if p > 0 else _NEVER, "bytes": list(letters[g].encode())}

    best = int(probabilities.argmax())
    listed = token(best) | {"top_logprobs": [token(g) for g in order]}
    message = {"role": "assistant", "content": letters[best], "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "length", "logprobs": {"content": [listed]}}
    return {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "created": 0,
        "model": str(request.get("model", Server.model)),
        "choices": [choice],
        "usage": {"prompt_tokens": 0, "completion_tokens": 1, "total_tokens": 1},
    }


def _handler(function: Callable[[Prompt], Any], family: Family) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            if self.path.rstrip("/") != "/v1/chat/completions" or length > _LARGEST_REQUEST:
                return self._send(404, {"error": {"message": f"there is no {self.path}"}})
            try:
                request = json.loads(self.rfile.read(length))
                self._send(200, answer(function, family, request))
            except (BayesparError, KeyError, IndexError, TypeError, ValueError) as error:
                self._send(400, {"error": {"message": f"{type(error).__name__}: {error}", "type": "invalid_request"}})

        def _send(self, status: int, data: dict[str, Any]) -> None:
            body = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is logged."""

    return Handler
