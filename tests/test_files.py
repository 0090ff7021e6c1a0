"""A crash while writing leaves the old or the new, never half."""

import os

import pytest

from fedit.files import whole_folder, write_atomically


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
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
