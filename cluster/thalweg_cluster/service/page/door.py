"""The HTTP door of the service: the page, what it asks, and what Prometheus does (`page/__init__.py` has all of it).

Rules:
  - It decides nothing about jobs: it changes the table, and tells the keeper that something has changed.
  - What a job says, its name, its error, is data: the page puts it into text nodes, and may load or run nothing but
    what came from here (Content-Security-Policy).
  - A mistake of ours is told with an id only, under which the log has the rest.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Collection
from http import HTTPStatus
from pathlib import Path
from time import monotonic, time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from thalweg_cluster.exposition import CONTENT_TYPE
from thalweg_cluster.launch.announcing import announced
from thalweg_cluster.monitoring.targets import sd_json
from thalweg_cluster.security.guard import Guard, why_not_listen
from thalweg_cluster.security.tokens import Right
from thalweg_cluster.service.keeper import Changes, Keeper
from thalweg_cluster.service.metrics import Calls, metrics_of_service
from thalweg_cluster.service.page.access import JSON, Refused, why_no_change, why_not_here, why_not_in
from thalweg_cluster.service.page.following import Following
from thalweg_cluster.service.page.news import JobsNow, Listener
from thalweg_cluster.service.showing import CANCELLABLE, Showing, wrong_state
from thalweg_cluster.service.table import JobRow, JobTable, WrongStateError
from thalweg_cluster.service.watching import LOOK_S
from thalweg_cluster.web import Answering, HttpServer
from thalweg_proto.errors import ServerError
from thalweg_proto.jobs import LIST_DEFAULT

LOG = logging.getLogger(__name__)
LISTENERS_MAX = 32
"""Who have the page open at the same time; half of the connections."""
LISTEN_S = 3600.0
HEARTBEAT_S = 10.0
BODY_BYTES_MAX = 1024
STATIC = Path(__file__).parent / "static"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", "": "text/plain"}
HEADERS = {
    "Content_Security_Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X_Content_Type_Options": "nosniff",
    "Cross_Origin_Resource_Policy": "same-origin",
    "Cross_Origin_Opener_Policy": "same-origin",
    "Referrer_Policy": "no-referrer",
    "Cache_Control": "no-store",
}


class RefusedError(Exception):
    """What was asked is refused."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.why)
        self.refused = refused


class PageDoor:
    """Listens on one address for the life of the service.

    url: for a browser on this machine, or one that knows the host by the name it listens on
    """

    def __init__(
        self,
        bind: str,
        port: int,
        *,
        names: Collection[str],
        table: JobTable,
        keeper: Keeper,
        changes: Changes,
        targets: Path,
        calls: Calls,
        guard: Guard,
    ) -> None:
        """Binds. ServerError where `guard` is too little for `bind`, OSError where it cannot be bound.

        names:   by which browsers may call it, beside addresses
        targets: the folder in which the runs of jobs say what there is to scrape
        calls:   those of the gRPC door
        """
        if (why := why_not_listen(bind, guard)) is not None:
            raise ServerError(why)
        self.names = names
        self.tokens = guard.tokens
        self.files = _files()
        self._table = table
        self._keeper = keeper
        self._changes = changes
        self._targets = targets
        self._calls = calls
        self._jobs = JobsNow(table, Showing(keeper))
        self._room = threading.BoundedSemaphore(LISTENERS_MAX)
        self._closed = False

        class Asked(_Asked):
            door = self

        self._server = HttpServer(bind, port, Asked, name="thalweg-page", tls=guard.tls)
        self.url = f"http{'' if guard.tls is None else 's'}://{bind}:{self._server.server_port}/"

    def open(self) -> None:
        """Starts to answer."""
        self._server.open()

    def close(self) -> None:
        """Ends all connections."""
        self._closed = True
        self._changes.tell()
        self._server.close()

    def jobs(self, before: str | None) -> dict[str, Any]:
        rows = self._table.newest(LIST_DEFAULT, None if before is None else _number(before))
        return {"jobs": [self._jobs.job(row) for row in rows]}

    def cancel(self, job_id: str) -> dict[str, Any]:
        job = self._job(job_id)
        try:
            job = self._table.cancel(job.id, time())
        except WrongStateError as error:
            raise RefusedError(Refused(HTTPStatus.CONFLICT, wrong_state(error.job, CANCELLABLE))) from None
        self._changes.tell()
        return self._jobs.job(job)

    def targets(self) -> str:
        """All, at each time. What a run has left that is over, or is none of ours, is none."""
        folders = {str(self._keeper.folder(job.id)) for job in self._table.alive() if job.state.started}
        return sd_json(target for target in announced(self._targets) if target.folder in folders)

    def metrics(self) -> bytes:
        return metrics_of_service(self._table, self._calls)

    def listen(self, job_id: str | None, asked: _Asked) -> None:
        """Tells one who asked the news, until he is gone."""
        job = None if job_id is None else self._job(job_id)
        if not self._room.acquire(blocking=False):
            why = f"expected at most {LISTENERS_MAX} pages that are open at the same time; found one more"
            raise RefusedError(Refused(HTTPStatus.SERVICE_UNAVAILABLE, why))
        try:
            following = None if job is None else Following(self._keeper.folder(job.id))
            listener = Listener(self._jobs, job_id, following)
            asked.begin(HTTPStatus.OK, "application/x-ndjson", **HEADERS)
            known, last_s, until_s = 0, monotonic(), monotonic() + LISTEN_S
            while not self._closed and monotonic() < until_s:
                if news := listener.news():
                    asked.wfile.write(json.dumps(news).encode() + b"\n")
                    last_s = monotonic()
                elif monotonic() - last_s >= HEARTBEAT_S:
                    asked.wfile.write(b"\n")
                    last_s = monotonic()
                known = self._changes.wait(known, LOOK_S)
        finally:
            self._room.release()

    def _job(self, text: str) -> JobRow:
        job = self._table.get(_number(text))
        if job is None:
            raise RefusedError(Refused(HTTPStatus.NOT_FOUND, f"expected a job of this service; found {text}"))
        return job


class _Asked(Answering):
    door: PageDoor

    def get(self) -> None:
        self._answered(self._get)

    def post(self) -> None:
        self._answered(self._post)

    def _get(self) -> None:
        url = urlsplit(self.path)
        if (file := self.door.files.get(url.path)) is not None:
            kind, content = file
            self.answer(HTTPStatus.OK, kind, content, **HEADERS)
            return
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self._check(why_not_in(self._all("Authorization"), self.door.tokens, Right.READ))
        match url.path:
            case "/api/jobs":
                self._json(self.door.jobs(query.get("before")))
            case "/api/news":
                self.door.listen(query.get("job"), self)
            case "/targets":
                self.answer(HTTPStatus.OK, JSON, self.door.targets().encode(), **HEADERS)
            case "/metrics":
                self.answer(HTTPStatus.OK, CONTENT_TYPE, self.door.metrics(), **HEADERS)
            case _:
                raise RefusedError(_nothing_here(url.path))

    def _post(self) -> None:
        self._check(why_not_in(self._all("Authorization"), self.door.tokens, Right.FULL))
        self._check(why_no_change(self._all("Origin"), self._all("Host"), self.headers.get("Content-Type", "")))
        self._check(self._read())
        match self.path.split("/"):
            case ["", "api", "jobs", job_id, "cancel"]:
                self._json(self.door.cancel(job_id))
            case _:
                raise RefusedError(_nothing_here(self.path))

    def _answered(self, answer: Any) -> None:
        try:
            self._check(why_not_here(self._all("Host"), self.door.names))
            answer()
        except RefusedError as error:
            status, why = error.refused
            bearer = {"WWW_Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
            self._json({"error": why}, status, **bearer)
        except OSError:
            raise  # the connection's
        except Exception as error:
            name = secrets.token_hex(4)
            LOG.error("error %s in an answer to %s", name, self.client_address, exc_info=error)
            if self.begun:
                return  # it ends there, and is asked for again
            why = f"error {name}: the log of the service tells what it was, under this id"
            self._json({"error": why}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _read(self) -> Refused | None:
        """Takes in what comes with a POST, which says nothing."""
        length = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit() and int(length) <= BODY_BYTES_MAX):
            why = f"Content-Length: expected at most {BODY_BYTES_MAX} bytes; found {length[:20]!r}"
            return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why)
        self.rfile.read(int(length))
        return None

    def _json(self, value: dict[str, Any], status: int = HTTPStatus.OK, **more: str) -> None:
        self.answer(status, JSON, json.dumps(value).encode(), **HEADERS, **more)

    def _all(self, name: str) -> list[str]:
        return self.headers.get_all(name, [])

    @staticmethod
    def _check(refused: Refused | None) -> None:
        if refused is not None:
            raise RefusedError(refused)


def _files() -> dict[str, tuple[str, bytes]]:
    """What the page is made of, by path: kind and content. Nothing else is ever read for a request."""
    found = {}
    for file in STATIC.rglob("*"):
        if file.is_file():
            kind = f"{KINDS[file.suffix]}; charset=utf-8"
            found[f"/{file.relative_to(STATIC).as_posix()}"] = (kind, file.read_bytes())
    return found | {"/": found["/index.html"]}


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise RefusedError(Refused(HTTPStatus.BAD_REQUEST, f"expected the number of a job; found {text[:80]!r}"))
    return int(text)


def _nothing_here(path: str) -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, f"there is nothing at {path[:200]!r}")
