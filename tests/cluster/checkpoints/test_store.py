from __future__ import annotations

import os
import secrets

import pytest

from thalweg_cluster.checkpoints import FileStore, ObjectStore, open_store


@pytest.fixture(params=["files", "objects"])
def store(request, tmp_path):
    """A folder, and an object store of fsspec's in memory."""
    place = str(tmp_path / "deep" / "er") if request.param == "files" else f"memory://{secrets.token_hex(4)}/runs"
    return open_store(place)


def test_what_was_written_is_read_listed_and_removed(store):
    """A second write replaces; what is not there is FileNotFoundError, and may be removed."""
    assert store.names() == []
    store.write("checkpoint_000001/b", b"first")
    store.write("checkpoint_000001/b", b"second")
    store.write("checkpoint_000001/a", b"")
    assert store.names() == ["checkpoint_000001/a", "checkpoint_000001/b"]
    assert store.read("checkpoint_000001/b") == b"second"
    for name in (*store.names(), "checkpoint_000001/c"):
        store.remove(name)
    assert store.names() == []
    with pytest.raises(FileNotFoundError):
        store.read("checkpoint_000001/a")


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../b", "/etc/passwd", "a/b/c", "a//b", "", ".", "..", "a\nb", "a\0b", "a/.hidden", "a b", "a" * 101],
)
def test_a_name_that_leads_elsewhere_is_refused(store, name):
    """Nothing is written or read."""
    with pytest.raises(ValueError, match="plain name"):
        store.write(name, b"x")
    with pytest.raises(ValueError, match="plain name"):
        store.read(name)
    assert store.names() == []


def test_each_file_is_synced_before_it_is_renamed_and_its_folder_after(tmp_path, monkeypatch):
    """What a loss of power could undo, in the order in which it may not."""
    did = []

    def noting(name, call):
        def noted(*given):
            target = given[0] if isinstance(given[0], str | os.PathLike) else os.readlink(f"/proc/self/fd/{given[0]}")
            did.append((name, os.path.basename(target)))
            return call(*given)

        return noted

    monkeypatch.setattr(os, "fsync", noting("sync", os.fsync))
    monkeypatch.setattr(os, "rename", noting("rename", os.rename))
    monkeypatch.setattr(os, "replace", noting("rename", os.replace))
    FileStore(tmp_path).write("checkpoint_000001/a", b"x")
    assert did == [
        ("sync", tmp_path.name),  # that holds the new folder
        ("sync", ".a.part"),
        ("rename", ".a.part"),
        ("sync", "checkpoint_000001"),
    ]


def test_nothing_is_under_the_name_where_writing_fails(tmp_path):
    """An old file stays whole, and what did not fit is gone."""
    store = FileStore(tmp_path)
    store.write("checkpoint_000001/a", b"old")

    def fail(act, path):
        if act == "rename":
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        FileStore(tmp_path, fail).write("checkpoint_000001/a", b"new")
    assert store.names() == ["checkpoint_000001/a"]
    assert store.read("checkpoint_000001/a") == b"old"


def test_a_url_is_an_object_store_and_a_path_a_folder(tmp_path):
    """An unknown kind of storage says so."""
    assert isinstance(open_store(str(tmp_path)), FileStore)
    assert isinstance(open_store(f"file://{tmp_path}"), FileStore)
    assert isinstance(open_store("memory://x"), ObjectStore)
    with pytest.raises(ValueError, match="nowhere"):
        open_store("nowhere://x")
