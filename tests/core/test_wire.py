import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit.core.header import DTYPES
from fedit.core.strict import WireError
from fedit.core.tree import same
from fedit.core.wire import pack, packed_size, unpack, unpack_own

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
roles = text.filter(lambda name: "/" not in name)
shapes = st.lists(st.integers(0, 4), max_size=3)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def tensors(draw):
    shape, dtype = draw(shapes), draw(st.sampled_from(list(DTYPES)))
    seed = draw(st.integers(0, 2**32 - 1))
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 50
    if dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64):
        values = values.abs()
    return values.to(dtype)


payloads = st.dictionaries(roles, st.dictionaries(text, tensors(), max_size=4), max_size=3)
envelopes = st.dictionaries(text, json_values, max_size=4)


def equal(left, right) -> bool:
    raw = {torch.float8_e4m3fn, torch.float8_e5m2}

    def comparable(tree):
        return {n: t.view(torch.uint8) if t.dtype in raw and t.ndim else t for n, t in tree.items()}

    return left.keys() == right.keys() and all(
        same(comparable(tree), comparable(right[role])) for role, tree in left.items()
    )


@settings(deadline=None)
@given(payloads, envelopes)
def test_every_payload_comes_back_and_its_size_is_known_beforehand(payload, envelope):
    block = pack(payload, envelope)
    for read in (unpack, unpack_own):
        got, said = read(block)
        assert equal(got, payload)
        assert said == envelope
    assert packed_size(payload, envelope) == len(block)
    assert pack(payload, envelope) == block


def test_an_empty_role_and_an_empty_tensor_survive():
    payload = {"empty": {}, "adapter": {"none": torch.zeros(0, 3), "one": torch.tensor(2.0)}}
    got, _ = unpack(pack(payload, {}))
    assert equal(got, payload)


def test_views_that_share_memory_are_sent_as_what_they_are():
    whole = torch.arange(12.0).reshape(3, 4)
    payload = {"a": {"whole": whole, "turned": whole.t(), "part": whole[1:]}, "b": {"again": whole}}
    block = pack(payload, {})
    assert equal(unpack(block)[0], payload)
    assert packed_size(payload, {}) == len(block)


GOOD = pack(
    {"adapter": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}},
    {"client": "c0", "round": 3},
)


def refused_or_a_payload(block: bytes) -> None:
    """The reader's whole contract for bytes from anywhere."""
    try:
        payload, envelope = unpack(block)
    except WireError:
        return
    assert isinstance(envelope, dict)
    assert all(isinstance(t, torch.Tensor) for tree in payload.values() for t in tree.values())


def test_a_block_cut_short_anywhere_is_refused():
    for length in range(len(GOOD)):
        with pytest.raises(WireError, match="message refused"):
            unpack(GOOD[:length])


def test_bytes_behind_the_end_are_refused():
    with pytest.raises(WireError):
        unpack(GOOD + b"\0")


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_a_mutated_block_is_refused_or_read_but_never_crashes(changes):
    block = bytearray(GOOD)
    for place, value in changes:
        block[place] = value
    refused_or_a_payload(bytes(block))


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(block):
    with pytest.raises(WireError):
        unpack(block)


@settings(deadline=None, max_examples=200)
@given(st.recursive(json_values, lambda inner: st.dictionaries(text, inner, max_size=2)))
def test_any_json_for_a_header_is_refused(header):
    with pytest.raises(WireError):
        unpack(framed(json.dumps(header)))


@settings(deadline=None, max_examples=200)
@given(json_values)
def test_any_json_for_the_metadata_is_refused_or_read(known):
    refused_or_a_payload(framed(json.dumps({"__metadata__": {"fedit": json.dumps(known)}})))


META = '"__metadata__":{"fedit":"{\\"roles\\":[\\"a\\"],\\"envelope\\":{}}"}'
ENTRY = '"a/x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'


def framed(header: str | bytes, data: bytes = b"") -> bytes:
    header = header.encode() if isinstance(header, str) else header
    return len(header).to_bytes(8, "little") + header + data


def test_the_hand_made_header_is_good_before_it_is_spoilt():
    payload, envelope = unpack(framed(f"{{{META},{ENTRY}}}", bytes(8)))
    assert payload["a"]["x"].tolist() == [0.0, 0.0]
    assert envelope == {}


@pytest.mark.parametrize(
    "header",
    [
        f"{{{META},{ENTRY},{ENTRY}}}",  # one name twice
        f"{{{META},{META},{ENTRY}}}",
        f"{{{ENTRY}}}",  # no metadata
        f'{{"__metadata__":{{"other":"1"}},{ENTRY}}}',
        f'{{"__metadata__":{{"fedit":"{{}}"}},{ENTRY}}}',
        f'{{"__metadata__":{{"fedit":"nonsense"}},{ENTRY}}}',
        f'{{"__metadata__":5,{ENTRY}}}',
        META.join("{}").replace('[\\"a\\"]', "7"),
        META.join("{}").replace('[\\"a\\"]', '\\"a\\"'),  # roles that are no list
        META.join("{}").replace('[\\"a\\"]', "[[]]"),
        META.join("{}").replace('\\"envelope\\":{}', '\\"envelope\\":7'),
        META.join("{}").replace('\\"envelope\\":{}', '\\"envelope\\":{\\"k\\":1,\\"k\\":2}'),
        f"{{{META},{ENTRY.replace('a/x', 'b/x')}}}",  # a role nobody declared
        f"{{{META},{ENTRY.replace('a/x', 'ax')}}}",
        f"{{{META},{ENTRY.replace('[2]', '[1099511627776,1099511627776]')}}}",
        f"{{{META},{ENTRY.replace('[2]', '[3]')}}}",
        f"{{{META},{ENTRY.replace('[2]', '[-2]')}}}",
        f"{{{META},{ENTRY.replace('[0,8]', '[8,16]')}}}",
        f"{{{META},{ENTRY.replace('F32', 'F31')}}}",
        "[" * 100_000,
        '{"__metadata__":{"fedit":"' + "[" * 100_000 + '"}}',
        '{"a":' + "9" * 5000 + "}",
        b'{"\xff": 1}',
    ],
    ids=range(23),
)
def test_a_hostile_header_is_refused(header):
    with pytest.raises(WireError, match="message refused"):
        unpack(framed(header, bytes(8) if "a/x" in str(header) else b""))


def test_a_header_length_beyond_the_block_is_refused_without_reserving_it():
    with pytest.raises(WireError):
        unpack((2**63).to_bytes(8, "little") + b"{}")
