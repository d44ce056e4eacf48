"""What arrives with a Submit, and what does not get onto the disk."""

from __future__ import annotations

import pytest

from thalweg_cluster.service.shipping import check_header, check_size, digest_of, receive
from thalweg_proto.errors import ProtocolError
from thalweg_proto.v1 import job_service_pb2 as pb


def header(*files: tuple[str, int], **values):
    usual = {"protocol_version": 1, "request_id": "request-1", "job": 'name = "x"\n'}
    headers = [pb.FileHeader(name=name, bytes=size) for name, size in files]
    return pb.SubmitHeader(files=headers, **usual | values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"request_id": "short"}, "request_id: expected 8 to 64 letters, digits or -; found 'short'"),
        ({"request_id": "../../../etc"}, "request_id"),
        ({"priority": 101}, "priority: expected from -100 to 100; found 101"),
        ({"job": "x" * ((1 << 20) + 1)}, "job: expected at most 1048576 bytes; found 1048577"),
    ],
)
def test_a_header_that_is_not_as_it_must_be_is_refused_by_the_name_of_its_field(values, said):
    """Before anything is written."""
    with pytest.raises(ProtocolError) as caught:
        check_header(header(**values))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "job.toml",
        "/etc/passwd",
        "../x",
        "files/../x",
        "files//x",
        "files/.x",
        "/".join("abcdefghijklmnopq"),
        "files/x\n",
        "files/x/",
        "files/x\x1b[2J",
        "files/a\\b",
        "files/\u202ex",
        "files/" + "ä" * 128,
        "./x",
        "files/.",
    ],
)
def test_no_name_leads_out_of_the_jobs_own_folder(name):
    """Nor to the job file, nor to a file that is hidden."""
    with pytest.raises(ProtocolError, match=r"files\.name: expected another plain relative path"):
        check_header(header((name, 1)))


def test_two_files_of_one_name_are_refused():
    """One would hide the other."""
    with pytest.raises(ProtocolError, match=r"files\.name"):
        check_header(header(("files/0/a", 1), ("files/0/a", 1)))


@pytest.mark.parametrize("name", ["files/0/a b.parquet", "files/0/größe/x.py", "/".join("abcdefghijklmnop"), "a/-b"])
def test_names_of_a_users_own_files_are_taken_as_they_are(name):
    """Spaces, any language, packages in packages."""
    check_header(header((name, 1)))


def test_a_file_is_not_where_another_one_has_a_folder():
    """The second could not be written."""
    with pytest.raises(
        ProtocolError, match=r"files\.name: expected a file or a folder; found 'files/0/a', which is both"
    ):
        check_header(header(("files/0/a/b/c", 1), ("files/0/a", 1)))


def test_what_is_sent_lies_in_the_folder_and_is_gone_afterwards(tmp_path):
    """Files may come in any number of parts, and may be empty."""
    sent = header(("files/0/a.csv", 5), ("files/1/empty", 0), ("files/2/b", 2))
    check_header(sent)
    with receive(tmp_path / "incoming", sent, iter([b"abc", b"de", b"fg"])) as folder:
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert found == {
            "job.toml": b'name = "x"\n', "files/0/a.csv": b"abcde", "files/1/empty": b"", "files/2/b": b"fg",
        }  # fmt: skip
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([b"abc"], "data of a: expected 5 bytes; found the end"),
        ([b"abc", b"def"], "data of a: expected 5 bytes; found 6"),
        ([b"abcde", b"f"], "data: expected no more"),
    ],
)
def test_other_data_than_the_header_says_is_refused_and_nothing_stays(parts, said, tmp_path):
    """Too little, too much, and a file that nobody has named."""
    with pytest.raises(ProtocolError, match=said), receive(tmp_path, header(("files/0/a", 5)), iter(parts)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_files_over_the_limit_are_refused_by_the_largest_ones_names():
    """With what to do instead."""
    sent = header(("files/0/a", 10), ("files/1/large", 5 << 20), ("files/0/b", 20), ("files/0/c", 30))
    assert check_size(sent, 6 << 20) == []
    [problem] = check_size(sent, 4 << 20)
    assert "at most 4.0 MiB in all; found 5.0 MiB, of which files/1/large has 5.0 MiB, " in str(problem)
    assert "files/0/c has 0.0 MiB, files/0/b has 0.0 MiB\n" in str(problem)
    assert "--in-place" in problem.hint


def test_the_digest_tells_one_submit_from_another():
    """Job, files and priority; not by which request it came."""
    same = digest_of(header(("files/0/a", 5)))
    assert digest_of(header(("files/0/a", 5), request_id="request-2")) == same
    for other in (
        header(),
        header(("files/0/a", 6)),
        header(("files/0/a", 5), job="y"),
        header(("files/0/a", 5), priority=1),
    ):
        assert digest_of(other) != same
