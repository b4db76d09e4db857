"""The world of a run: one server, hubs and a site that reach it by proxies, and the server's own word on what was
committed. It lasts for many schedules; `heal` undoes whatever a fault has left."""

from __future__ import annotations

import json
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from time import monotonic
from types import TracebackType
from typing import Any

import psycopg

from pgfanout import History, NotifyHub, PostgresHub
from tests.support.gunicorn import GunicornServer
from tests.support.postgres import PostgresServer
from tests.support.replication import Copy
from tests.support.tcp_proxy import TcpProxy
from tests.support.wait import eventually

from .cause import Cause
from .commitlog import MARK, CommitLog
from .ledger import Ledger, Sent
from .oracle import Oracle
from .record import Topic

__all__ = ["World"]

_DATABASE = "faults"
_ROLE = "app"
_PASSWORD = "first"
_BUFFERS = {"small": 8, "large": 256}
_CONFIG = "tests/acceptance/apps/gunicorn.conf.py"
_STRANGER = "stranger"
SITE = "site"
_SITES = (SITE, "site-2")
THREADS = 24
_RESERVE = 2
MAX_REPLAY = 5_000
"""More than a schedule publishes to two tenants, and less than an import."""
# Enough for what a schedule publishes, and little enough for some of what came before to be pruned while it runs.
_HISTORY = History(max_rows=60_000, max_replay=MAX_REPLAY, prune_every=4.0)
GRACEFUL_TIMEOUT = 16


class World:
    """`hubs` live in this process, each of the `sites` is a gunicorn with a hub in its worker, and each of the `paths`
    leads one of them to the server.

    With `history`, the log is installed in the database, and every hub has it.

    Of a schedule: `causes` are what may be told as a gap, `broken` gathers what faults find wrong on the way, `stops`
    how long workers took to stop, and `cuts_allowed` says whether streams may end without a farewell.
    """

    def __init__(self, *, preload: bool = False, history: bool = False) -> None:
        settings: dict[str, object] = {
            "wal_level": "logical",
            "max_connections": 60,
            "log_min_messages": "fatal",
            "synchronous_commit": "on",  # to the system, whose end no fault is: what was committed stays
        }
        hba = (f"host all {_ROLE} 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 trust")
        self.server = PostgresServer(settings=settings, hba=hba)
        if self.server.version >= 17:
            self.server.settings["max_notify_queue_pages"] = 64  # the least, so that a fault can fill it
        self.hubs: dict[str, NotifyHub] = {}
        self.paths: dict[str, TcpProxy] = {}
        self.sites: dict[str, GunicornServer] = {}
        self.begin(Ledger())
        self.history = history
        self.restarting = threading.Lock()
        """Held by a fault that ends a worker, until there is another one."""
        self._preload = preload
        self._stack = ExitStack()

    def begin(self, ledger: Ledger) -> None:
        """Begin a schedule, which publishes what the ledger has."""
        self.ledger = ledger
        self.cuts_allowed = False
        self.causes: list[Cause] = []
        self.broken: list[str] = []
        self.stops: list[float] = []
        self._branches: dict[int, Cause] = {}
        self._removals: list[tuple[Cause, dict[str, object]]] = []

    def __enter__(self) -> World:
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _build(self) -> None:
        self._stack.enter_context(self.server)
        self.server.create_database(_DATABASE)
        with self.connect() as admin:
            admin.execute(f"CREATE ROLE {_ROLE} LOGIN PASSWORD '{_PASSWORD}'")
            admin.execute(f"ALTER ROLE {_ROLE} SET client_encoding = 'LATIN1'")
            admin.execute(f"CREATE ROLE {_STRANGER} LOGIN")
            self._log = CommitLog(admin)
        if self.history:
            self.new_hub(self.server.url(_DATABASE)).install_history(publishers=[_ROLE], readers=[_ROLE])
        for name in (*_BUFFERS, *_SITES):
            self.paths[name] = self._stack.enter_context(TcpProxy(self.server.host, self.server.port))
        for name, size in _BUFFERS.items():
            self.hubs[name] = self._stack.enter_context(
                self.new_hub(
                    self._url(name), buffer_size=size, heartbeat=0.5, heartbeat_timeout=0.5, max_reconnect_delay=0.5
                )
            )
            self.hubs[name].start(30)
        for name in _SITES:
            self._build_site(name)
        self.await_listening()

    def _build_site(self, name: str) -> None:
        environment = {
            "DATABASE_URL": self._url(name),
            "PGFANOUT_HEARTBEAT": "0.5",
            "PGFANOUT_HEARTBEAT_TIMEOUT": "0.5",
            "PGFANOUT_KEEPALIVE": "1",
            "START_BEFORE_FORK": "1" if self._preload else None,
            "PGFANOUT_HISTORY": str(self.history),
            "PGFANOUT_HISTORY_MAX_ROWS": str(_HISTORY.max_rows),
            "PGFANOUT_HISTORY_MAX_REPLAY": str(_HISTORY.max_replay),
            "PGFANOUT_HISTORY_PRUNE_EVERY": str(_HISTORY.prune_every),
        }
        self.sites[name] = self._stack.enter_context(
            GunicornServer(
                "tests.faults.app:app",
                config=_CONFIG,
                threads=THREADS,
                settings=("--graceful-timeout", str(GRACEFUL_TIMEOUT)),
                env=environment,
                preload=self._preload,
            )
        )

    def _url(self, path: str) -> str:
        direct = self.server.url(_DATABASE, user=_ROLE, password=_PASSWORD)
        return self.paths[path].through(direct) + "?connect_timeout=2"

    def app_url(self) -> str:
        """The server itself, as the hubs' role."""
        return self.server.url(_DATABASE, user=_ROLE, password=_PASSWORD)

    def connect(self, encoding: str = "UTF8", *, autocommit: bool = True) -> psycopg.Connection[Any]:
        """A session of the superuser that no network fault reaches."""
        return self.server.connect(_DATABASE, autocommit=autocommit, client_encoding=encoding)

    def connect_publisher(self, encoding: str) -> psycopg.Connection[Any]:
        return self.connect(encoding, autocommit=False)

    def hub_of(self, connection: psycopg.Connection[Any]) -> NotifyHub:
        """A hub that publishes through a connection, and could make one of its own."""
        return self.new_hub(executor=connection)

    def new_hub(self, url: str = "", **options: Any) -> PostgresHub:
        """A hub, as the hubs' role unless there is a URL."""
        return PostgresHub(url or self.app_url(), history=_HISTORY if self.history else False, **options)

    def lose(self, topic: Topic, text: str) -> None:
        """Commit an event whose notification nobody can read, so that it has to be told as a gap.

        With history it is no event: who is away and comes back gets what is in the log, and this is not.
        """
        if self.history:
            self.notify(text)
            return
        key = self.ledger.next_key()
        sent = Sent(key, topic, f"lost {key}".encode(), "")
        self.ledger.add(sent)
        with self.connect(autocommit=False) as connection:
            connection.execute(MARK, (str(key),))
            connection.execute("SELECT pg_notify('pgfanout_events', %s)", (text,))
            sent.begun = monotonic()

    def notify(self, text: str) -> None:
        """Notify as a role that may connect, and nothing else."""
        with psycopg.connect(self.server.url(_DATABASE, user=_STRANGER), autocommit=True) as connection:
            connection.execute("SELECT pg_notify('pgfanout_events', %s)", (text,))

    @contextmanager
    def telling(
        self, what: str, topics: Iterable[Topic] | None = None, paths: Iterable[str] | None = None
    ) -> Iterator[Cause]:
        """While something happens that is told at most once a second, of these topics, through these paths."""
        cause = Cause(what, monotonic(), each_second=True)
        cause.topics = None if topics is None else frozenset(topics)
        cause.paths = None if paths is None else frozenset(paths)
        cause.until = float("inf")
        self.causes.append(cause)
        try:
            yield cause
        finally:
            cause.until = monotonic()

    def replace_data(self, copy: Copy, seen: Iterable[str], *, promoted: bool) -> None:
        """Let a copy of its data take the place of the server, which is stopped; hubs had `seen` by these paths what
        the copy has not."""
        # Twice: a reader that is behind may have it from the log, and then from its hub.
        cause = Cause("lost commits", monotonic(), paths=frozenset(seen), times=2)
        self.causes.append(cause)
        copy.take_over(promoted=promoted)
        with copy, copy.connect(_DATABASE) as what_was:
            self._branches[self._log.read_lost(what_was)] = cause
            numbers = self._last_numbers(what_was)
        with self.connect() as admin:
            cause.numbers = numbers - self._last_numbers(admin)

    def _last_numbers(self, connection: psycopg.Connection[Any]) -> set[str]:
        query = "SELECT number::text FROM pgfanout.event ORDER BY number DESC LIMIT 20000"
        return {number for (number,) in connection.execute(query)} if self.history else set()

    def remove(self, statement: str, topics: Iterable[Topic] | None = None) -> None:
        """Remove events of topics from the log."""
        # A reader that is behind may find several times that the log has not what it lacks.
        cause = Cause("removal", monotonic(), removes=True, until=float("inf"), times=8)
        cause.topics = None if topics is None else frozenset(topics)
        self._removals.append((cause, self.session_marks()))
        self.causes.append(cause)
        with self.connect(autocommit=False) as admin:
            admin.execute("LOCK TABLE pgfanout.event IN SHARE ROW EXCLUSIVE MODE")  # nobody commits an event any more
            cause.below = self.last_number(admin)
            cause.calm = self._await_offered(cause.below)
            admin.execute(statement)
        cause.until = monotonic()

    def _await_offered(self, number: int) -> bool:
        """Whether the hubs of this process offer everything up to a number within a second."""
        with suppress(AssertionError):
            ends = {str(number)}
            return eventually(lambda: {str(hub.cursor()) for hub in self.hubs.values()} == ends, timeout=1.0)
        return False

    def last_number(self, connection: psycopg.Connection[Any]) -> int:
        """The number of the last event in the log; 0 when there is none."""
        ((number,),) = connection.execute("SELECT coalesce(max(number), 0) FROM pgfanout.event").fetchall()
        return int(number)

    def advance_numbers(self, microseconds: int) -> None:
        """As if the server's clock had been ahead: numbers go on from so much later."""
        with self.connect() as admin:
            admin.execute("SELECT setval('pgfanout.number', nextval('pgfanout.number') + %s)", (microseconds,))

    def clock_is_ahead_of_numbers(self) -> bool:
        """Whether the next number is the time; always, where there are none."""
        if not self.history:
            return True
        query = "SELECT pg_sequence_last_value('pgfanout.number') < extract(epoch FROM clock_timestamp()) * 1000000"
        with self.connect() as admin:
            return admin.execute(query).fetchone() == (True,)

    def session_marks(self) -> dict[str, object]:
        """Something for each hub that changes with its session; a new one, too, for a site that does not answer."""
        marks: dict[str, object] = {name: hub.stats().reconnects for name, hub in self.hubs.items()}
        for name in self.sites:
            try:
                inside = self.inside(name, timeout=2.0)
                marks[name] = (inside["pid"], inside["reconnects"])
            except OSError:
                marks[name] = object()
        return marks

    def renewed(self, before: Mapping[str, object]) -> frozenset[str]:
        """The hubs that have had a new session, or may have."""
        now = self.session_marks()
        return frozenset(name for name in now if now[name] != before[name])

    def accepts(self) -> bool:
        """Whether the server accepts connections; raises psycopg's error when not."""
        self.connect().close()
        return True

    def inside(self, name: str = SITE, timeout: float = 10.0) -> dict[str, Any]:
        """What the worker of a site tells of itself."""
        with urllib.request.urlopen(f"{self.sites[name].url}/inside", timeout=timeout) as answer:
            told: dict[str, Any] = json.load(answer)
        return told

    def site_answers(self, name: str, within: float = 15.0) -> None:
        """Ask an ordinary request, which has to be answered whatever the streams do."""
        began = monotonic()
        try:
            with urllib.request.urlopen(self.sites[name].url, timeout=15.0) as answer:
                assert answer.read() == b"hello"
        except TimeoutError:
            self.broken.append("starved: an ordinary request was not answered within 15 s")
        except OSError:
            return  # no worker, or one that was stopped while it answered
        if (took := monotonic() - began) > within:
            self.broken.append(f"starved: an ordinary request took {took:.1f} s, {within:g} s are allowed here")

    def streams_leave_threads(self, name: str) -> None:
        with suppress(OSError):  # as above
            streams = self.inside(name)["in_threads"]
            if streams > THREADS - _RESERVE:
                self.broken.append(f"starved: {streams} of {THREADS} threads have streams")

    def refused_requests(self, name: str, count: int) -> None:
        """Requests for what can't be had, which must not keep a stream's place."""
        url = f"{self.sites[name].url}/events?tenant=&channel=orders"
        for _ in range(count):
            try:
                urllib.request.urlopen(url, timeout=15.0).close()
            except OSError:
                pass  # a status above 400 is one, too

    def head_requests(self, name: str, count: int) -> None:
        """Requests that open no stream, although a GET for the same would."""
        for _ in range(count):
            url = f"{self.sites[name].url}/events?tenant={uuid.uuid4()}&channel=orders"
            request = urllib.request.Request(url, method="HEAD", headers={"Accept": "text/event-stream"})
            try:
                urllib.request.urlopen(request, timeout=15.0).close()
            except OSError:
                pass  # as above

    def listening(self) -> bool:
        return all(map(self.listens, self.paths))

    def listens(self, path: str) -> bool:
        """Whether a hub listens, in this process or in a site."""
        return self.hubs[path].listening if path in self.hubs else bool(self.inside(path)["listening"])

    def await_listening(self) -> None:
        eventually(self.listening, timeout=60.0, interval=0.02)

    def heal(self) -> None:
        """Undo whatever is left of a fault: a network in order, a server that runs and knows the password."""
        for path in self.paths.values():
            path.heal()
        self.server.start()
        self.set_password(_PASSWORD)
        for site in self.sites.values():
            if not site.is_running:
                site.start()

    def set_password(self, password: str) -> None:
        with self.connect() as admin:
            admin.execute(f"ALTER ROLE {_ROLE} PASSWORD '{password}'")

    def listeners(self) -> list[int]:
        """The process ids of the sessions that LISTEN for the hubs."""
        with self.connect() as admin:
            query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgfanout-listener' ORDER BY pid"
            return [pid for (pid,) in admin.execute(query)]

    def oracle(self, ledger: Ledger) -> Oracle:
        """Ask the server what it has committed of the ledger's events, and each that it has replaced."""
        for cause, marks in self._removals:
            # A hub may have been away with a number that was removed meanwhile.
            self.causes.append(Cause("removal beside a lost session", cause.since, paths=self.renewed(marks)))
        sents = {sent.key: sent for sent in ledger.all()}
        with self.connect() as admin:
            commits = self._log.read(admin)
        lost = {key: self._branches[branch] for key, branch in commits.lost.items() if branch in self._branches}
        committed = [sents[key] for key in commits.keys if key in sents]
        return Oracle(ledger, committed, history=self.history, causes=self.causes, lost=lost, max_replay=MAX_REPLAY)

    def publish_all(self, ledger: Ledger, events: Sequence[tuple[Topic, str, dict[str, object]]]) -> None:
        """Marked events, in one transaction of a session that no network fault reaches."""
        sents = []
        for topic, type, content in events:
            key = ledger.next_key()
            sents.append(Sent(key, topic, json.dumps({**content, "key": key}).encode(), type))
            ledger.add(sents[-1])
        hub = next(iter(self.hubs.values()))
        with self.connect(autocommit=False) as connection:
            connection.cursor().executemany(MARK, [(str(sent.key),) for sent in sents])
            texts = [(sent.topic.channel, sent.topic.tenant, sent.payload, sent.type) for sent in sents]
            hub.publish_many(texts, executor=connection)
            begun = monotonic()
            for sent in sents:
                sent.begun = begun

    @contextmanager
    def sessions(self, count: int, connect: Callable[[], psycopg.Connection[Any]]) -> Iterator[int]:
        """As many sessions as can be had, `count` at most."""
        with ExitStack() as stack:
            taken = 0
            try:
                while taken < count:
                    stack.enter_context(connect())
                    taken += 1
            except psycopg.OperationalError:
                pass
            yield taken
