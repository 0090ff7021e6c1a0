"""A crash while writing leaves the old or the new, never half."""

import os

import pytest

from fedit.files import flush, whole_folder, write_atomically, write_whole


def test_flush_forces_every_file_and_folder_to_disk_and_says_what_it_cannot(tmp_path, monkeypatch):
    paths = [tmp_path / str(number) for number in range(40)]
    for path in paths:
        write_whole(path, b"new")
    forced, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: forced.append(os.fstat(fd).st_ino) or real(fd))
    flush([])
    assert forced == []
    flush([*paths, tmp_path])
    assert sorted(forced) == sorted(path.stat().st_ino for path in [*paths, tmp_path])
    with pytest.raises(FileNotFoundError):
        flush([*paths, tmp_path / "missing"])


@pytest.mark.parametrize("write_atomically", [write_atomically, write_whole])
def test_a_file_is_replaced_whole_or_not_at_all(write_atomically, tmp_path, monkeypatch):
    path = tmp_path / "state"
    write_atomically(path, b"old")

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    write_atomically(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "adapter"

    def attempt(crash: bool) -> None:
        with whole_folder(target) as folder:
            (folder / "first").write_text("new")
            assert not (target / "first").exists()
            if crash:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(crash=True)
    assert not target.exists()
    attempt(crash=False)
    assert [path.name for path in target.iterdir()] == ["first"]
    assert list(tmp_path.iterdir()) == [target]
