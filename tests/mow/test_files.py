from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from marks import needs_permissions

from mow.files import append_json_line, json_text, number_text, read_json_lines, write_whole


def test_writes_text_and_bytes_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert write_whole(path, "größer\r\n") == path.resolve()
    assert path.read_bytes() == "größer\r\n".encode()
    write_whole(path, b"\x00\x01")
    write_whole(tmp_path / "b", memoryview(b"view"))
    assert path.read_bytes() == b"\x00\x01"
    assert (tmp_path / "b").read_bytes() == b"view"
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


def test_the_file_is_complete_and_on_the_disk_before_its_name_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls = tmp_path / "a", []
    sync, replace = os.fsync, os.replace

    def seen_sync(descriptor: int) -> None:
        calls.append(("fsync", os.fstat(descriptor).st_size))
        sync(descriptor)

    def seen_replace(source: Path, target: Path) -> None:
        calls.append(("replace", os.path.getsize(source)))
        assert Path(source).parent == Path(target).parent
        replace(source, target)

    monkeypatch.setattr(os, "fsync", seen_sync)
    monkeypatch.setattr(os, "replace", seen_replace)
    write_whole(path, b"12345")
    assert calls == [("fsync", 5), ("replace", 5)]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        path = write_whole(tmp_path / "a", b"")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "far" / "target")
    write_whole(link, "text")
    assert link.is_symlink()
    assert (tmp_path / "far" / "target").read_text() == "text"


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="content must be bytes, memoryview or str, got list"):
        write_whole(tmp_path / "a", [1])  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_a_folder_is_made_and_an_error_names_the_file(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "new" / "er" / "a", b"text")
    assert path.read_bytes() == b"text"
    with pytest.raises(OSError, match="exists|directory") as raised:
        write_whole(path / "b", b"")
    assert raised.value.filename == str(path)
    long = tmp_path / ("n" * 300)
    with pytest.raises(OSError) as raised:
        write_whole(long, b"")
    assert raised.value.filename == str(long.resolve()) and "part" not in str(raised.value)
    assert os.listdir(tmp_path) == ["new"] and os.listdir(path.parent) == ["a"]


@needs_permissions
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError) as raised:
        write_whole(tmp_path / "a", b"")
    tmp_path.chmod(0o700)
    assert raised.value.filename == str((tmp_path / "a").resolve())


def test_a_line_that_a_kill_has_cut_is_not_read_and_gives_way(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert read_json_lines(path) == []
    append_json_line(path, {"step": 1})
    append_json_line(path, {"step": 2})
    for cut in ('{"st', '{"step": 3}'):
        with open(path, "a") as file:
            file.write(cut)
        assert read_json_lines(path) == [{"step": 1}, {"step": 2}]
    append_json_line(path, {"step": 4})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 4}\n'
    path.write_text('{"step": 1}\n{"st\n')
    with pytest.raises(ValueError, match="line 2, is no JSON"):
        read_json_lines(path)


def test_what_json_has_no_number_for_is_null(tmp_path: Path) -> None:
    value = {"a": math.nan, "b": [math.inf, 1, 2.5, "NaN"], "c": {"d": (-math.inf, None, True)}}
    expected = {"a": None, "b": [None, 1, 2.5, "NaN"], "c": {"d": [None, None, True]}}
    assert json.loads(json_text(value, indent=1)) == expected
    append_json_line(tmp_path / "log", value)
    assert read_json_lines(tmp_path / "log") == [expected]
    assert math.isnan(value["a"]), "the value stays as it was"
    assert number_text(None, ".1f") == "–" and number_text(2.25, ".1f") == "2.2"
