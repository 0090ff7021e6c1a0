"""The server's door, and what a hostile site's processes can put through it."""

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="needs the extra federation")

from fedit.engines.frames import Hung, call, place_of, receive, send
from fedit.engines.nvflare.job import _pump
from fedit.federation.door import Door


@pytest.fixture
def door(tmp_path):
    found = Door(place_of(tmp_path, "door"))
    yield found
    found.close()


def calling(tmp_path, door):
    relay = call(place_of(tmp_path, "door"))
    send(relay, b"sites", b"east", b"north")
    while not door.called():
        pass
    return relay


def test_an_answer_passes_and_a_job_that_hangs_up_loses_what_was_on_its_way(tmp_path, door):
    relay = calling(tmp_path, door)
    assert door.present() == {"east", "north"}
    for number, site in ((1, "east"), (2, "north")):
        door.post(site, number, b"order", 5.0)
        assert receive(relay) == [str(number).encode(), site.encode(), b"5.000", b"order"]
    send(relay, b"answer", b"1", b"east", b"update")
    news = door.next(5.0)
    assert (news.site, news.number, news.answer) == ("east", 1, b"update")
    relay.close()
    news = door.next(5.0)
    assert (news.site, news.number, news.answer) == ("north", 2, None)
    assert not door.called()


def test_another_sites_answer_takes_nobodys_place(tmp_path, door):
    relay = calling(tmp_path, door)
    door.post("east", 1, b"order", 5.0)
    send(relay, b"answer", b"1", b"north", b"of north")
    send(relay, b"answer", b"1", b"east", b"of east")
    assert door.next(5.0).answer == b"of east"
    relay.close()


@pytest.mark.parametrize("answer", [np.zeros((1, 100), np.uint8), "text", bytearray(3), 7, [b"x"]])
def test_what_is_no_bytes_never_reaches_the_servers_socket(answer):
    """The length of an array is not that of its bytes: the rest would be read as further messages."""
    said = []

    class Results:
        def __init__(self):
            self.failures = {}

        def __iter__(self):
            return iter([("east", answer)])

    _pump(lambda *parts: said.append(parts), b"1", b"east", Results())
    assert said == [(b"lost", b"1", b"east", b"no bytes")]


def test_lengths_are_of_bytes_whatever_is_sent(tmp_path, door):
    relay = calling(tmp_path, door)
    door.post("east", 1, memoryview(np.arange(4, dtype=np.int64)), 5.0)
    assert len(receive(relay)[3]) == 32
    relay.close()


def test_who_is_hung_up_on_learns_of_it_and_the_next_job_is_heard(tmp_path, door):
    """An old job's process may live on: its line must not keep the next one out."""
    relay = calling(tmp_path, door)
    door.drop("the job was replaced")
    relay.settimeout(5.0)
    with pytest.raises(Hung, match="the other end has closed it"):
        receive(relay)
    following = calling(tmp_path, door)
    door.post("east", 1, b"order", 5.0)
    assert receive(following)[3] == b"order"
    following.close()
    relay.close()
