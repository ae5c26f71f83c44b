"""Files are written as a whole, or not at all."""

import os
import stat
import threading

import pytest

from skgradood.utils.files import replacing, try_folder, try_replacing


def write(path, content):
    with replacing(path) as stream:
        stream.write(content)


def write_half(path, error):
    with replacing(path) as stream:
        stream.write(b"half of the new")
        raise error


def test_a_file_is_made_or_replaced_and_nothing_else_is_left(tmp_path):
    for content in (b"old", b"new"):
        write(tmp_path / "x.csv", content)
        assert (tmp_path / "x.csv").read_bytes() == content
    assert os.listdir(tmp_path) == ["x.csv"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_an_error_half_way_the_old_file_is_as_it_was(tmp_path, error):
    write(tmp_path / "x.csv", b"old")
    with pytest.raises(error):
        write_half(tmp_path / "x.csv", error)
    assert (tmp_path / "x.csv").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.csv"]


def test_permissions_are_handed_on(tmp_path):
    write(tmp_path / "x.csv", b"old")
    (tmp_path / "x.csv").chmod(0o600)
    write(tmp_path / "x.csv", b"new")
    assert stat.S_IMODE((tmp_path / "x.csv").stat().st_mode) == 0o600


def test_links_are_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "elsewhere" / "x.csv")
    for content in (b"old", b"new"):
        try_replacing(tmp_path / "link.csv")
        write(tmp_path / "link.csv", content)
        assert (tmp_path / "elsewhere" / "x.csv").read_bytes() == content
    assert (tmp_path / "link.csv").is_symlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names")
def test_a_pipe_is_written_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write(tmp_path / "pipe", b"content")
    reader.join()
    assert read == [b"content"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_the_longest_name_that_a_file_can_have(tmp_path):
    longest = tmp_path / ("n" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    try_replacing(longest)
    assert os.listdir(tmp_path) == []
    write(longest, b"content")
    assert longest.read_bytes() == b"content"
    with pytest.raises(OSError, match="nnn cannot be written: File name too long"):
        try_replacing(tmp_path / f"{longest.name}n")


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        try_replacing(tmp_path)
    for folder in ("no", "file"):
        with pytest.raises(FileNotFoundError, match=r"folder of .*x\.csv does not exist"):
            try_replacing(tmp_path / folder / "x.csv")


@pytest.mark.parametrize("name", ["new.csv", "old.csv"])
def test_a_folder_in_which_nothing_can_be_made_is_found_by_trying(tmp_path, monkeypatch, name):
    (tmp_path / "old.csv").write_bytes(b"old")
    tried = []

    def refuse(path, mode):
        tried.append(path)
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("skgradood.utils.files.Path.open", refuse)
    with pytest.raises(PermissionError, match=rf"{name} cannot be written: Permission denied$"):
        try_replacing(tmp_path / name)
    with pytest.raises(PermissionError):
        try_folder(tmp_path)
    assert [path.parent for path in tried] == [tmp_path, tmp_path]


def test_a_file_that_may_not_be_written_is_refused_before(tmp_path, monkeypatch):
    (tmp_path / "x.csv").write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=r"x\.csv cannot be written: it may not"):
        try_replacing(tmp_path / "x.csv")
