"""A server and three sites, as real processes over mutual TLS, end with the bytes of `fedit run`."""

import json

import pytest

pytest.importorskip("nvflare", reason="needs the extra federation")

from tests.federation.network import federation


@pytest.mark.slow
def test_a_federation_ends_with_the_bytes_of_fedit_run(tmp_path):
    with federation(tmp_path) as all_of_us:
        expected = all_of_us.in_process()
        all_of_us.start_all()
        all_of_us.finish()
        assert all_of_us.adapter() == expected
        rounds = all_of_us.journal()
        assert [len(record["clients"]) for record in rounds[1:]] == [3] * 4
        assert all(record["failures"] == [] for record in rounds[1:])
        usual = (tmp_path / "usual" / "journal.jsonl").read_text().splitlines()
        for mine, line in zip(rounds, usual, strict=True):
            other = json.loads(line)
            for key in ("cohort", "weights", "loss", "bytes_down", "tokens"):
                assert mine.get(key) == other.get(key), key
        for site in all_of_us.sites:
            assert "ready with" in all_of_us.said(site)
            assert "Traceback" not in all_of_us.said(site)
