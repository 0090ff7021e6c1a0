"""What is made of what NVFlare's server says of its sites."""

import pytest

pytest.importorskip("nvflare", reason="needs the extra federation")

from fedit.engines.nvflare.control import Control


@pytest.mark.parametrize(
    ("told", "working"),
    [
        ([{"client_name": "north", "job_id": "a", "status": "started"}], {"north"}),
        ([{"client_name": "north", "job_id": "b", "status": "started"}], set()),
        ([{"client_name": "north", "status": "no_jobs"}], set()),
        ([{"client_name": "north", "status": "no_reply"}], {"north"}),
        (None, set()),
    ],
)
def test_only_who_says_so_has_no_part_in_the_job(told, working, tmp_path, monkeypatch):
    """A site whose machine is too busy to answer is not said to have dropped its job."""
    control = Control(tmp_path)
    monkeypatch.setattr(control, "_ask", lambda what: told)
    assert control.working("a") == working
