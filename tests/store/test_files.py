"""One contract for every place that a store may lie in, and a whole store on each."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import pytest

from nas_sweeps.store import Store, requests
from nas_sweeps.store.files import File, Files, open_files
from nas_sweeps.store.layout import Layout, Writer
from nas_sweeps.store.lease import Lease, StoreLocked
from nas_sweeps.store.ledger import AlreadyDone, Overtaken
from nas_sweeps.tables import compact, load

Open = Callable[[str], Files]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of a bucket on an object store of this machine."""
    from moto.server import ThreadedMotoServer
    from pyarrow import fs

    os.environ.pop("AWS_PROFILE", None)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    fs.S3FileSystem(
        access_key="x",
        secret_key="y",
        endpoint_override=endpoint,
        region="us-east-1",
        allow_bucket_creation=True,
    ).create_dir("bucket")
    yield f"s3://x:y@bucket/{{}}?region=us-east-1&endpoint_override={quote(endpoint, safe='')}"
    server.stop()


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / 'it\'s a "store" 漢')
    name = "".join(c for c in request.node.name if c.isalnum())
    return str(request.getfixturevalue("bucket").format(quote(f"{name}/a store 漢")))


@pytest.fixture
def files(root: str) -> Files:
    opened = open_files(root)
    opened.publish("here", b"")
    return opened


def test_what_was_published_is_read_back_and_listed(files: Files) -> None:
    files.publish("trials/s-1/b.json", b"\x00\xff")
    files.publish("trials/s-1/a.json", b"1", durable=False)
    files.publish("trials/s-1/a.json", b"22")
    assert files.read("trials/s-1/a.json") == b"22"
    assert files.read("trials/s-1/b.json") == b"\x00\xff"
    assert files.names("trials/s-1") == ("a.json", "b.json")
    assert {n: f.names for n, f in files.tree("trials").items()} == {"s-1": ("a.json", "b.json")}


def test_what_is_not_there_is_none_or_an_error_of_its_own(files: Files) -> None:
    assert files.names("none") == ()
    assert files.tree("none") == {}
    files.remove("none")
    for ask in (files.read, files.mtime_ns):
        with pytest.raises(FileNotFoundError):
            ask("none")


def test_a_removed_file_is_gone(files: Files) -> None:
    files.publish("a/b", b"1")
    files.remove("a/b")
    assert files.names("a") == ()


def test_a_log_grows_at_its_end(files: Files) -> None:
    files.publish("a/other", b"")
    files.append("a/log", "é\n")
    files.append("a/log", "2\n")
    assert files.read("a/log").decode() == "é\n2\n"


def test_a_folders_stamp_moves_with_every_change(files: Files) -> None:
    files.publish("t/s-1/a", b"1")
    before = files.tree("t")["s-1"].mtime_ns
    deadline = time.monotonic() + 10  # clocks of object stores tick once a second
    after = before
    while after == before and time.monotonic() < deadline:
        files.publish("t/s-1/a", b"2")
        after = files.tree("t")["s-1"].mtime_ns
    assert after > before
    assert files.now() >= after - 2 * 10**9


def test_a_write_that_fails_leaves_the_old_file(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.publish("a/b", b"old")
    with pytest.raises(TypeError):
        files.publish("a/b", "text is not bytes")  # type: ignore[arg-type]
    assert files.read("a/b") == b"old"
    assert files.names("a") == ("b",)


def test_a_files_name_tells_no_secret(root: str) -> None:
    assert "x:y" not in str(File(open_files(root), "a"))


def test_an_unknown_kind_of_address_is_a_users_mistake() -> None:
    with pytest.raises(ValueError, match="names no bucket"):
        open_files("s3://")
    with pytest.raises(ValueError, match="nosuch://"):
        open_files("nosuch://bucket/x")


def test_numbers_that_json_lacks_become_null(files: Files) -> None:
    file = File(files, "x")
    file.publish_json({"a": [math.nan, 1.5], "b": {"c": -math.inf}})
    assert file.read_json() == {"a": [None, 1.5], "b": {"c": None}}


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_object_is_reported_by_name(files: Files, content: bytes) -> None:
    files.publish("torn.json", content)
    with pytest.warns(UserWarning, match=r"torn\.json"):
        assert File(files, "torn.json").read_json() is None


# A whole store


def test_a_store_keeps_its_promises_anywhere(root: str, lab: Any) -> None:
    """Asked, overtaken, done, loaded, compacted: the same on every kind of files."""
    lab.store = store = Store(root)
    store.create()
    trial = lab.search()
    frozen = lab.begin(trial)
    lab.epochs(trial, (0.1,))
    lab.finish(trial, accuracy=0.75)
    with pytest.raises(Overtaken):
        frozen.beat()
    late = lab.result(trial, 1, metrics={"accuracy_balanced": 0.5})
    frozen.files.result.publish_json(asdict(late))  # it wrote all the same
    with pytest.raises(AlreadyDone):
        Store(root).begin(trial.trial_id)
    frames = load(Store(root))
    assert frames.trials[["state", "attempt", "accuracy_balanced"]].values.tolist() == [
        ["done", 2, 0.75]
    ]
    assert frames.epochs.accuracy_balanced.tolist() == [0.5, 0.25]
    compact(Store(root))
    again = load(Store(root))
    for name in ("trials", "epochs", "classes", "genotypes", "attempts"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(frames, name))


def test_two_drivers_never_hold_one_store(root: str) -> None:
    store = Store(root)
    store.create()
    with Lease(store.layout, "first"), pytest.raises(StoreLocked, match="'first'"):
        Lease(Store(root).layout, "second").__enter__()
    with Lease(Store(root).layout, "third"):
        pass


def test_a_driver_is_asked_through_either_kind_of_store(files: Files) -> None:
    layout, driver = Layout(files), Writer(3, "abcdef")
    inbox = requests.Inbox(layout, driver, every_s=0)
    assert inbox.poll() == []
    file = requests.ask(layout, driver, requests.Request(what="cancel", only="mu < 0.1"))
    ((request, found),) = inbox.poll()
    assert (request.only, found) == ("mu < 0.1", file)
    found.remove()
    assert layout.requests() == []
