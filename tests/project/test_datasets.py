"""Data sets come from the network once, are what was published, and their absence is explained.

The transfer is the real `python -m zenodo_get`; in that child every connection that does not go to this computer is
forbidden and zenodo.org is played by a local server.
"""

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO, StringIO
from pathlib import Path

import pooch
import pytest

from jaxqmri import datasets
from jaxqmri.errors import CorruptInputError, DatasetUnavailableError, OutputError, UsageError

NAME = "ismrm2024-t2star"
PUBLISHED = datasets.DATASETS[NAME]
RECORD_PATH, FILE_PATH = "/api/records/10868361", "/api/records/10868361/files/T2star.zip/content"
CONTENTS = {"T2star/echo1.dcm": bytes(range(256)) * 40, "T2star/echo2.dcm": b"second"}

# Runs in the child before zenodo_get. The hook comes first: should the rest fail, the network stays out of reach.
SITECUSTOMIZE = """
import sys

def refuse_other_hosts(event, args):
    host = args[0] if event == "socket.getaddrinfo" else args[1][0] if event == "socket.connect" else "127.0.0.1"
    if host != "127.0.0.1":
        raise ConnectionError(f"the test forbids a connection to {{host}}")

sys.addaudithook(refuse_other_hosts)

import httpx2

send = httpx2.HTTPTransport.handle_request

def send_to_stand_in(self, request):
    published = request.url
    assert (published.scheme, published.host) == ("https", "zenodo.org"), published
    request.url = published.copy_with(scheme="http", host="127.0.0.1", port={port})
    try:
        return send(self, request)
    finally:
        request.url = published  # a retry sends the same object again

httpx2.HTTPTransport.handle_request = send_to_stand_in
"""


def zipped(contents: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class StandIn(ThreadingHTTPServer):
    """Answers like zenodo.org for one record with one file; a test replaces the answers it wants different."""

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[str] = []
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.serve_record("T2star.zip", content, md5(content))

    def serve_record(self, file: str, content: bytes, checksum: str) -> None:
        link = f"https://zenodo.org{FILE_PATH}"
        entry = {"key": file, "size": len(content), "checksum": f"md5:{checksum}", "links": {"self": link}}
        record = {"metadata": {"title": "stand-in"}, "files": [entry]}
        self.answers = {
            RECORD_PATH: lambda handler: answer(handler, 200, json.dumps(record).encode()),
            FILE_PATH: lambda handler: answer(handler, 200, content),
        }


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        assert isinstance(self.server, StandIn)
        self.server.requests.append(self.path)
        self.server.answers[self.path](self)

    def log_message(self, format, *args):
        pass


def answer(handler: BaseHTTPRequestHandler, status: int, content: bytes, declared: int | None = None) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content) if declared is None else declared))
    handler.end_headers()
    handler.wfile.write(content)


@pytest.fixture
def archive() -> bytes:
    return zipped(CONTENTS)


@pytest.fixture
def cache(tmp_path, monkeypatch, archive) -> Path:
    """An empty cache, and a data set whose published hash is that of `archive`."""
    monkeypatch.setenv("JAXQMRI_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXQMRI_OFFLINE", raising=False)
    monkeypatch.setattr(datasets, "DATASETS", {NAME: replace(PUBLISHED, md5=md5(archive))})
    return tmp_path / "cache"


@pytest.fixture
def zenodo(cache, tmp_path, monkeypatch, archive) -> Iterator[StandIn]:
    with StandIn(archive) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE.format(port=server.server_port))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
        for variable in ("HTTPS_PROXY", "ALL_PROXY", "HTTP_PROXY"):  # a proxy would be asked for 127.0.0.1
            monkeypatch.delenv(variable, raising=False)
            monkeypatch.delenv(variable.lower(), raising=False)
        yield server
        server.shutdown()


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_unavailable(cache: Path, *causes: str) -> None:
    """fetch() fails with one line that holds the causes and everything needed to mend it; no new file is left."""
    before = files_in(cache) if cache.exists() else {}
    with pytest.raises(DatasetUnavailableError) as raised:
        datasets.fetch(NAME)
    message = str(raised.value)
    wanted = datasets.DATASETS[NAME]
    by_hand = cache / NAME / "T2star.zip"
    url = "https://zenodo.org/records/10868361/files/T2star.zip"
    for part in (*causes, NAME, "445.8 kB", wanted.md5, url, "10.5281/zenodo.10868361", str(by_hand), "run again"):
        assert part in message
    assert "\n" not in message
    assert files_in(cache) == before
    assert by_hand.parent.is_dir()
    assert [p.name for p in by_hand.parent.iterdir() if p.is_dir()] == []


def test_download_is_verified_unpacked_and_asked_for_once(cache, zenodo, archive, capfd):
    folder = datasets.fetch(NAME)
    assert files_in(folder) == CONTENTS
    assert zenodo.requests == [RECORD_PATH, FILE_PATH]
    assert folder.parent == cache / NAME
    assert sorted(p.name for p in folder.parent.iterdir()) == sorted(["T2star.zip", folder.name])
    assert (cache / NAME / "T2star.zip").read_bytes() == archive
    assert datasets.fetch(NAME) == folder
    assert len(zenodo.requests) == 2
    assert capfd.readouterr() == ("", "")


def test_pooch_is_silent_for_us_and_nobody_else(zenodo):
    # Its logger hangs on no other one and holds the stderr of its import, so it is watched by a handler of its own.
    heard = StringIO()
    handler = logging.StreamHandler(heard)
    pooch.get_logger().addHandler(handler)
    try:
        datasets.fetch(NAME)
        assert heard.getvalue() == ""
        pooch.get_logger().info("%s", "for somebody else")
        assert heard.getvalue() == "for somebody else\n"
    finally:
        pooch.get_logger().removeHandler(handler)


def test_progress_goes_to_stderr(zenodo, capfd):
    datasets.fetch(NAME, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "T2star.zip (445.8 kB)" in err


def test_fetch_works_in_a_thread_and_leaves_the_process_as_it_was(zenodo):
    folder, interrupt = Path.cwd(), signal.getsignal(signal.SIGINT)
    found: list[Path] = []
    thread = threading.Thread(target=lambda: found.append(datasets.fetch(NAME)))
    thread.start()
    thread.join()
    assert files_in(found[0]) == CONTENTS
    assert (Path.cwd(), signal.getsignal(signal.SIGINT)) == (folder, interrupt)


def test_modules_in_the_users_folder_do_not_reach_the_child(zenodo, tmp_path, monkeypatch):
    (tmp_path / "zenodo_get.py").write_text("raise SystemExit('the wrong zenodo_get')")
    monkeypatch.chdir(tmp_path)
    assert files_in(datasets.fetch(NAME)) == CONTENTS


@pytest.mark.parametrize("path", [RECORD_PATH, FILE_PATH])
@pytest.mark.parametrize("status", [404, 500])
def test_error_of_the_server_is_told(cache, zenodo, path, status):
    zenodo.answers[path] = lambda handler: answer(handler, status, b"no")
    assert_unavailable(cache, str(status))


def test_answer_that_is_no_record_is_told(cache, zenodo):
    zenodo.answers[RECORD_PATH] = lambda handler: answer(handler, 200, b"<html>sign in to the hotel network</html>")
    assert_unavailable(cache)
    assert zenodo.requests == [RECORD_PATH]


def test_no_server_is_told(cache, zenodo):
    zenodo.shutdown()
    zenodo.server_close()
    assert_unavailable(cache, "refused")


def test_record_without_the_file_is_told(cache, zenodo, archive):
    # zenodo_get reports success for this one.
    zenodo.serve_record("another.zip", archive, md5(archive))
    assert_unavailable(cache, "not found in metadata")
    assert zenodo.requests == [RECORD_PATH]


def test_other_file_than_published_is_refused(cache, zenodo, archive):
    # The record itself states the hash of the new file, so only our own table can tell.
    forged = zipped({"T2star/echo1.dcm": b"forged"})
    zenodo.serve_record("T2star.zip", forged, md5(forged))
    assert_unavailable(cache, md5(archive), md5(forged))
    assert zenodo.requests == [RECORD_PATH, FILE_PATH]


def test_file_damaged_on_the_way_is_refused(cache, zenodo, archive):
    damaged = archive[:-1] + b"!"
    zenodo.answers[FILE_PATH] = lambda handler: answer(handler, 200, damaged)
    assert_unavailable(cache, md5(archive), md5(damaged))


def test_truncated_download_is_refused(cache, zenodo, archive):
    zenodo.answers[FILE_PATH] = lambda handler: answer(handler, 200, archive[:100], declared=len(archive))
    assert_unavailable(cache)


def test_stalled_download_is_given_up(cache, zenodo, archive, monkeypatch):
    monkeypatch.setattr(datasets, "DOWNLOAD_TIMEOUT", 2.0)
    gone = threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        answer(handler, 200, archive[:100], declared=len(archive))
        handler.connection.recv(1)  # returns when the child is dead
        gone.set()

    zenodo.answers[FILE_PATH] = stall
    assert_unavailable(cache, "within 2 s")
    assert gone.wait(10)


def test_interrupt_leaves_no_file_and_no_child(cache, zenodo, archive):
    main_thread, gone = threading.main_thread().ident, threading.Event()
    assert main_thread is not None

    def interrupt(handler: BaseHTTPRequestHandler) -> None:
        answer(handler, 200, archive[:100], declared=len(archive))
        signal.pthread_kill(main_thread, signal.SIGINT)
        handler.connection.recv(1)  # returns when the child is dead
        gone.set()

    zenodo.answers[FILE_PATH] = interrupt
    with pytest.raises(KeyboardInterrupt):
        datasets.fetch(NAME)
    assert gone.wait(10)
    assert list((cache / NAME).iterdir()) == []


@pytest.mark.parametrize("value", ["1", "true"])
def test_offline_never_touches_the_network(cache, zenodo, monkeypatch, value):
    monkeypatch.setenv("JAXQMRI_OFFLINE", value)
    assert_unavailable(cache, "JAXQMRI_OFFLINE is set")
    assert zenodo.requests == []


def test_offline_zero_means_online(zenodo, monkeypatch):
    monkeypatch.setenv("JAXQMRI_OFFLINE", "0")
    assert files_in(datasets.fetch(NAME)) == CONTENTS


def test_archive_put_there_by_hand_needs_no_network(cache, zenodo, archive):
    (cache / NAME).mkdir(parents=True)
    (cache / NAME / "T2star.zip").write_bytes(archive)
    assert datasets.list_datasets()[0].cached
    assert files_in(datasets.fetch(NAME)) == CONTENTS
    assert zenodo.requests == []


def test_wrong_archive_put_there_by_hand_is_named_and_kept(cache, monkeypatch):
    monkeypatch.setenv("JAXQMRI_OFFLINE", "1")
    (cache / NAME).mkdir(parents=True)
    (cache / NAME / "T2star.zip").write_bytes(b"something else")
    assert not datasets.list_datasets()[0].cached
    assert_unavailable(cache, f"has md5 {md5(b'something else')}")


def test_wrong_archive_is_replaced_only_by_the_right_one(cache, zenodo, archive):
    (cache / NAME).mkdir(parents=True)
    (cache / NAME / "T2star.zip").write_bytes(b"something else")
    good = zenodo.answers[FILE_PATH]
    zenodo.answers[FILE_PATH] = lambda handler: answer(handler, 404, b"")
    assert_unavailable(cache, "404", md5(b"something else"))
    zenodo.answers[FILE_PATH] = good
    assert files_in(datasets.fetch(NAME)) == CONTENTS
    assert (cache / NAME / "T2star.zip").read_bytes() == archive


def test_removed_archive_is_not_missed_once_unpacked(cache, zenodo):
    folder = datasets.fetch(NAME)
    (cache / NAME / "T2star.zip").unlink()
    assert datasets.fetch(NAME) == folder
    assert len(zenodo.requests) == 2


def test_removed_folder_is_unpacked_again_without_the_network(zenodo):
    shutil.rmtree(datasets.fetch(NAME))
    assert files_in(datasets.fetch(NAME)) == CONTENTS
    assert len(zenodo.requests) == 2


def test_new_publication_of_a_data_set_is_fetched_beside_the_old_one(zenodo, monkeypatch):
    old = datasets.fetch(NAME)
    changed = zipped({"T2star/echo1.dcm": b"corrected"})
    zenodo.serve_record("T2star.zip", changed, md5(changed))
    monkeypatch.setattr(datasets, "DATASETS", {NAME: replace(PUBLISHED, md5=md5(changed))})
    assert files_in(datasets.fetch(NAME)) == {"T2star/echo1.dcm": b"corrected"}
    assert files_in(old) == CONTENTS


def test_several_callers_at_once_share_one_folder(cache, archive, monkeypatch):
    monkeypatch.setenv("JAXQMRI_OFFLINE", "1")
    (cache / NAME).mkdir(parents=True)
    (cache / NAME / "T2star.zip").write_bytes(archive)
    start, found = threading.Barrier(8), []

    def call() -> None:
        start.wait()
        found.append(datasets.fetch(NAME))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert files_in(found[0]) == CONTENTS
    assert sorted(p.name for p in (cache / NAME).iterdir()) == sorted(["T2star.zip", found[0].name])


def test_published_archive_that_cannot_be_trusted_is_not_unpacked(cache, monkeypatch):
    hostile = zipped({"../evil": b"1"})
    monkeypatch.setattr(datasets, "DATASETS", {NAME: replace(PUBLISHED, md5=md5(hostile))})
    (cache / NAME).mkdir(parents=True)
    (cache / NAME / "T2star.zip").write_bytes(hostile)
    with pytest.raises(CorruptInputError, match=r"T2star\.zip"):
        datasets.fetch(NAME)
    assert files_in(cache.parent) == {f"cache/{NAME}/T2star.zip": hostile}


def test_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXQMRI_OFFLINE", "1")
    monkeypatch.setenv("JAXQMRI_DATA_DIR", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="JAXQMRI_DATA_DIR"):
        datasets.fetch(NAME)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match=NAME):
        datasets.fetch("no-such-set")


def test_listing_says_what_is_cached_and_where(cache, zenodo):
    [before] = datasets.list_datasets()
    assert (before.name, before.cached) == (NAME, False)
    assert not cache.exists()
    folder = datasets.fetch(NAME)
    [after] = datasets.list_datasets()
    assert (after.cached, after.folder) == (True, folder)


def test_cache_is_the_platforms_unless_moved(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXQMRI_DATA_DIR", str(tmp_path / "x" / ".." / "y"))
    assert datasets.cache_dir().resolve() == tmp_path / "y"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXQMRI_DATA_DIR", "relative")
    assert datasets.cache_dir() == tmp_path / "relative"
    monkeypatch.delenv("JAXQMRI_DATA_DIR")
    assert "jaxqmri" in datasets.cache_dir().parts
    assert datasets.cache_dir().is_absolute()


def test_table_states_the_published_identity():
    assert PUBLISHED.url == "https://zenodo.org/records/10868361/files/T2star.zip"
    assert PUBLISHED.md5 == "f387357a0b4024ca62e979203eff9def"
    assert all(name == dataset.name for name, dataset in datasets.DATASETS.items())


def test_zenodo_get_stays_out_of_this_process():
    # Importing it replaces the handler of Ctrl-C, and its licence is not ours.
    code = "import sys, jaxqmri.datasets; print('zenodo_get' in sys.modules, 'jax' in sys.modules)"
    root = Path(datasets.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
