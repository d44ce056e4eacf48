from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from thalweg_cluster.checkpoints import (
    CheckpointError,
    FileStore,
    Manifest,
    ShardFile,
    ShardState,
    clear,
    commit,
    folder_name,
    newest,
    write_shard,
)
from thalweg_cluster.checkpoints.reading import read
from thalweg_proto.layout import Layout

LAYOUT = Layout.of({"a": (5, 3), "b": (20,)})
SIZE = LAYOUT.size


MANIFEST = Manifest(
    step=1,
    version=1,
    generation=1,
    job="",
    tensors=(("w", (16,)),),
    size=16,
    rule="sgd",
    slots=(),
    hosts=1,
    files=(ShardFile(name="s", bytes=1, sha256="0" * 64, begin=0, end=16, host=0, updates=1, names=((1, 2),)),),
)


class Killed(BaseException):
    """As kill -9 ends a process: nothing is caught, nothing is tidied up."""


def numbers(step: int) -> np.ndarray:
    return np.arange(SIZE, dtype=np.float32) + 100 * step


def save_all(folder: Path, step: int, hosts: int = 2, keep: int = 3, at=lambda act, path: None) -> Manifest:
    """A checkpoint whose parameters are `numbers(step)` and whose state is their negative."""
    store = FileStore(folder, at)
    bounds = np.linspace(0, SIZE, hosts + 1).astype(int).tolist()
    files = []
    for host, (begin, end) in enumerate(itertools.pairwise(bounds)):
        part = numbers(step)[begin:end]
        state = ShardState(
            begin=begin,
            end=end,
            parameters=part,
            slots={"momentum_buffer": -part},
            updates=step,
            of_host={"residual.0": np.full(2, host, np.float32)},
            names=((step, host),),
        )
        files.append(write_shard(store, step, state, host=host, hosts=hosts))
    manifest = Manifest(
        step=step,
        version=step,
        generation=1,
        job='name = "x"',
        tensors=tuple((t.name, t.shape) for t in LAYOUT.tensors),
        size=SIZE,
        rule="momentum",
        slots=("momentum_buffer",),
        hosts=hosts,
        files=tuple(files),
    )
    commit(store, manifest, keep=keep)
    return manifest


def steps(folder: Path) -> list[int]:
    """Of the checkpoints that are there, by their folders."""
    return sorted(int(path.name.removeprefix("checkpoint_")) for path in folder.glob("checkpoint_*"))


@pytest.mark.parametrize("hosts", [1, 2, 3])
def test_what_was_saved_is_loaded(hosts, tmp_path):
    """The whole vectors, from any number of shards; what belongs to a host only where there are as many again."""
    manifest = save_all(tmp_path, 7, hosts)
    checkpoint, refused = newest(FileStore(tmp_path))
    assert (checkpoint.manifest, refused) == (manifest, [])
    state = checkpoint.state(hosts)
    np.testing.assert_array_equal(state.parameters, numbers(7))
    np.testing.assert_array_equal(state.slots["momentum_buffer"], -numbers(7))
    assert (state.version, state.step, state.updates) == (7, 7, 7)
    assert [state.residuals(host)["0"].tolist() for host in range(hosts)] == [[h, h] for h in range(hosts)]
    assert state.names == {host: ((7, host),) for host in range(hosts)}
    other = checkpoint.state(hosts + 1)
    assert other.residuals(0) == {}
    assert other.names == {0: tuple((7, host) for host in range(hosts))}


def test_the_newest_are_kept(tmp_path):
    """As many as were asked for."""
    for step in range(1, 6):
        save_all(tmp_path, step, keep=3)
    assert steps(tmp_path) == [3, 4, 5]
    save_all(tmp_path, 6, keep=1)
    assert steps(tmp_path) == [6]


def test_what_another_host_writes_of_a_later_checkpoint_is_left_alone(tmp_path):
    """The manifest of step 1 comes when a shard of step 2 is there already."""
    early = ShardState(begin=0, end=1, parameters=np.zeros(1, np.float32), slots={}, updates=2)
    write_shard(FileStore(tmp_path), 2, early, host=1, hosts=2)
    save_all(tmp_path, 1, keep=1)
    assert steps(tmp_path) == [1, 2]


def test_a_run_that_goes_back_behind_a_checkpoint_removes_it_and_what_is_unfinished(tmp_path):
    """But nothing that is whole and not later."""
    for step in (1, 2, 4):
        save_all(tmp_path, step)
    (tmp_path / folder_name(3)).mkdir()
    (tmp_path / folder_name(3) / "shard_00000_of_00002.safetensors").write_bytes(b"x")
    (tmp_path / folder_name(1) / ".manifest.json.part").write_bytes(b"x")
    clear(FileStore(tmp_path), after=3)
    assert steps(tmp_path) == [1, 2]
    assert not list(tmp_path.glob("*/.*"))


def all_points(tmp_path: Path) -> list[str]:
    points: list[str] = []
    save_all(tmp_path / "points", 1, at=lambda act, path: points.append(f"{act} {path.name}"))
    return points


@pytest.mark.faults(
    "killed at each write and rename, 2 shards",
    how="raised at each point",
    expected="the one before loads, left-overs removed",
)
def test_killed_at_any_point_of_a_checkpoint_the_one_before_or_it_loads(tmp_path):
    """Before and after each write and rename; the next one removes what was left over."""
    points = all_points(tmp_path)
    assert len(points) == 9  # write, rename, written: of two shards and the manifest
    for fatal in range(len(points)):
        folder = tmp_path / str(fatal)
        save_all(folder, 1)
        left = iter(range(len(points)))

        def kill(act, path, left=left, fatal=fatal):
            if next(left) == fatal:
                raise Killed

        with pytest.raises(Killed):
            save_all(folder, 2, at=kill)
        checkpoint, _ = newest(FileStore(folder))
        whole = points[fatal] == "written manifest.json"
        assert checkpoint.manifest.step == (2 if whole else 1), points[fatal]
        np.testing.assert_array_equal(checkpoint.state(2).parameters, numbers(2 if whole else 1))
        clear(FileStore(folder), after=checkpoint.manifest.step)
        save_all(folder, 3)
        assert steps(folder) == ([1, 2, 3] if whole else [1, 3])
        assert not list(folder.glob("*/.*"))


def damage_flip(data: bytes, at: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.faults(
    "shard flipped, cut, gone, a pickle, empty", how="by hand", expected="refused by name, the one before loads"
)
@pytest.mark.parametrize("name", ["shard_00000_of_00002.safetensors", "shard_00001_of_00002.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "pickle", "empty"])
def test_a_broken_shard_is_refused_by_name_and_the_one_before_loads(name, damage, tmp_path):
    """Whatever was done to it."""
    for step in (1, 2):
        save_all(tmp_path, step)
    file = tmp_path / folder_name(2) / name
    data = file.read_bytes()
    canary = tmp_path / "canary"
    changed = {
        "flip": damage_flip(data, -3),
        "cut": data[:-1],
        "pickle": pickle.dumps(Exploit(canary)),
        "empty": b"",
    }
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(changed[damage])
    checkpoint, [refused] = newest(FileStore(tmp_path))
    assert checkpoint.manifest.step == 1
    assert refused.startswith(f"{folder_name(2)}: {name}: expected ")
    assert not canary.exists()


class Exploit:
    """Unpickled, it leaves a file."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self):
        return Path.touch, (self._canary,)


@pytest.mark.faults(
    "pickle or other arrays in place of a shard, sums right", how="by hand", expected="refused by name, never executed"
)
def test_a_shard_whose_sum_is_right_is_still_not_trusted(tmp_path):
    """The manifest and the file agree, and the file is a pickle, or has other arrays."""
    good = save_all(tmp_path, 1, hosts=1)
    canary = tmp_path / "canary"
    part = np.zeros(SIZE, np.float32)
    for data, found in (
        (pickle.dumps(Exploit(canary)), "expected a safetensors file"),
        (save({"parameters": part}), "state.momentum_buffer: expected an array; found none"),
        (save({"parameters": part[1:], "state.momentum_buffer": part}), "parameters: expected float32 of shape"),
        (save({"parameters": part.astype(np.float64), "state.momentum_buffer": part}), "found float64"),
        (save({"parameters": part, "state.momentum_buffer": part, "x": np.zeros(1, np.int8)}), "found others"),
    ):
        file = replace(good.files[0], bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        (tmp_path / folder_name(1) / file.name).write_bytes(data)
        (tmp_path / folder_name(1) / "manifest.json").write_bytes(replace(good, files=(file,)).to_json())
        with pytest.raises(CheckpointError, match=found):
            read(FileStore(tmp_path), 1)
    assert not canary.exists()


@pytest.mark.faults("any byte of a manifest changed", how="hypothesis", expected="refused, or says the same")
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_manifest_with_any_byte_changed_is_refused_or_still_says_the_same(at, byte):
    """It never raises anything but CheckpointError, whatever is in it; between two words any space is as good."""
    data = MANIFEST.to_json()
    at %= len(data)
    changed = data[:at] + bytes([byte]) + data[at + 1 :]
    with contextlib.suppress(CheckpointError):
        assert Manifest.from_json(changed) == MANIFEST


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"format": 2}, "format: expected 1; found 2"),
        ({"step": -1}, "step: expected a whole number"),
        ({"step": True}, "step: expected int; found True"),
        ({"job": None}, "job: expected str; found None"),
        ({"size": 17}, "size: expected that of all tensors"),
        ({"tensors": [["w", [2**60]]]}, "expected a shape"),
        ({"tensors": [["w", [-1]]]}, "expected a shape"),
        ({"tensors": {"w": 1}}, "tensors: expected list"),
        ({"files": []}, r"expected ranges from 0 to 16; found none"),
        ({"files": [{"name": "../x", "sha256": "0" * 64, "names": []}]}, "expected a plain file name; found '../x'"),
        ({"files": ["x"]}, "expected a table; found str"),
        ({"sha256": None}, "sha256: expected str; found None"),
        ({"job": "another"}, "sha256: expected [0-9a-f]{64} of what it says; found [0-9a-f]{64}"),
    ],
)
def test_what_a_manifest_must_be(change, found):
    """Each mistake is named."""
    table = json.loads(MANIFEST.to_json()) | change
    with pytest.raises(CheckpointError, match=found):
        Manifest.from_json(json.dumps(table).encode())


def test_a_manifest_in_anothers_folder_is_refused(tmp_path):
    """A checkpoint is the step that its folder says."""
    save_all(tmp_path, 1)
    (tmp_path / folder_name(1)).rename(tmp_path / folder_name(5))
    checkpoint, [refused] = newest(FileStore(tmp_path))
    assert checkpoint is None
    assert refused == f"{folder_name(5)}: manifest.json: step: expected 5, as its folder says; found 1"
