"""The strict reader: a good block is spoilt in one way each, and the reason must be that one."""

import json
import tracemalloc

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from fedit.core.errors import quoted
from fedit.core.header import HEADER, Reason, WireError
from fedit.core.tree import same, spec
from fedit.core.wire import largest, pack, unpack, unpack_own

TREE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}
GOOD = pack({"adapter": TREE}, {"client": "c0", "loss": 0.5})
WANTED = {"adapter": spec(TREE)}


def parts(block: bytes = GOOD) -> tuple[dict, bytes]:
    length = int.from_bytes(block[:8], "little")
    return json.loads(block[8 : 8 + length]), block[8 + length :]


def made(header, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def with_entry(**changes) -> bytes:
    header, data = parts()
    header["adapter/a"] |= changes
    return made(header, data)


def with_known(text: str) -> bytes:
    header, data = parts()
    return made({**header, "__metadata__": {"fedit": text}}, data)


def replaced(old: str, new: str) -> bytes:
    header, data = parts()
    text = json.dumps(header)
    assert old in text
    return made(text.replace(old, new, 1).encode("utf-8", "surrogatepass"), data)


def without(key: str) -> bytes:
    header, data = parts()
    del header[key]
    return made(header, data)


def other(tree, role: str = "adapter") -> bytes:
    return pack({role: tree}, {})


GAP = {"dtype": "F32", "shape": [1], "data_offsets": [40, 44]}
BAD = {
    "nothing": (b"", Reason.SIZE),
    "a length alone": (GOOD[:8], Reason.SIZE),
    "half a header": (GOOD[:40], Reason.SIZE),
    "a length beyond everything": ((2**64 - 1).to_bytes(8, "little") + b"{}", Reason.SIZE),
    "more than was asked for": (GOOD + bytes(HEADER), Reason.SIZE),
    "a header too long": (made(b"{" + b" " * HEADER, b""), Reason.HEADER),
    "no UTF-8": (made(b'{"\xff":1}', b""), Reason.TEXT),
    "UTF-16": (made('{"a":1}'.encode("utf-16"), b""), Reason.JSON),
    "a byte order mark": (made(b"\xef\xbb\xbf{}", b""), Reason.JSON),
    "a lone surrogate within": (with_known('{"roles":["\ud800"],"envelope":{}}'), Reason.TEXT),
    "no JSON": (made(b"{]", b""), Reason.JSON),
    "two values": (made(b"{}{}", b""), Reason.JSON),
    "a list": (made(b"[]", b""), Reason.JSON),
    "a space before it": (made(b" {}", b""), Reason.JSON),
    "deep": (made(b'{"a":' + b"[" * 99_999, b""), Reason.NESTING),
    "deep, balanced": (made(b'{"a":' + b"[" * 20 + b"]" * 20 + b"}", b""), Reason.NESTING),
    "deep within": (with_known('{"roles":' + "[" * 50_000), Reason.NESTING),
    "a name twice": (replaced('"adapter/b"', '"adapter/a"'), Reason.TWICE),
    "a word of an entry twice": (replaced('"shape"', '"dtype"'), Reason.TWICE),
    "twice within": (with_known('{"roles":[],"roles":[],"envelope":{}}'), Reason.TWICE),
    "NaN": (with_known('{"roles":["adapter"],"envelope":{"x":NaN}}'), Reason.NUMBER),
    "infinity": (with_known('{"roles":["adapter"],"envelope":{"x":-Infinity}}'), Reason.NUMBER),
    "infinity in digits": (with_known('{"roles":[],"envelope":{"x":1e999}}'), Reason.NUMBER),
    "a thousand digits": (with_entry(shape=[10**999, 3]), Reason.NUMBER),
    "no metadata": (without("__metadata__"), Reason.METADATA),
    "other metadata": (replaced('"fedit"', '"format"'), Reason.METADATA),
    "metadata beside": (replaced('{"fedit"', '{"format": "pt", "fedit"'), Reason.METADATA),
    "metadata that is no text": (made({"__metadata__": {"fedit": {}}}, b""), Reason.METADATA),
    "nothing within": (with_known("{}"), Reason.METADATA),
    "more within": (with_known('{"roles":[],"envelope":{},"x":1}'), Reason.METADATA),
    "an envelope that is none": (with_known('{"roles":[],"envelope":[]}'), Reason.METADATA),
    "roles that are none": (with_known('{"roles":{},"envelope":{}}'), Reason.METADATA),
    "a role twice": (with_known('{"roles":["a","a"],"envelope":{}}'), Reason.METADATA),
    "a role with a slash": (with_known('{"roles":["a/b"],"envelope":{}}'), Reason.METADATA),
    "a role that is a number": (with_known('{"roles":[1],"envelope":{}}'), Reason.METADATA),
    "many roles": (
        with_known(json.dumps({"roles": [str(i) for i in range(65)], "envelope": {}})),
        Reason.METADATA,
    ),
    "an entry that is none": (made({**parts()[0], "adapter/a": 1}, parts()[1]), Reason.ENTRY),
    "an entry with more": (with_entry(more=1), Reason.ENTRY),
    "an unknown dtype": (with_entry(dtype="F31"), Reason.ENTRY),
    "a dtype that is a list": (with_entry(dtype=["F32"]), Reason.ENTRY),
    "a shape that is a number": (with_entry(shape=6), Reason.ENTRY),
    "true in a shape": (with_entry(shape=[True, 6]), Reason.ENTRY),
    "a fraction in a shape": (with_entry(shape=[2.0, 3]), Reason.ENTRY),
    "less than none": (with_entry(shape=[-2, -3]), Reason.ENTRY),
    "nine dimensions": (with_entry(shape=[2, 3] + [1] * 7), Reason.ENTRY),
    "a shape beyond all memory": (with_entry(shape=[0, 2**60]), Reason.ENTRY),
    "strides that overflow": (with_entry(shape=[0] + [2**40] * 3), Reason.ENTRY),
    "a shape of more bytes": (with_entry(shape=[2, 4]), Reason.ENTRY),
    "one offset": (with_entry(data_offsets=[0]), Reason.ENTRY),
    "three offsets": (with_entry(data_offsets=[0, 24, 24]), Reason.ENTRY),
    "offsets the wrong way": (with_entry(data_offsets=[24, 0]), Reason.ENTRY),
    "true for an offset": (with_entry(data_offsets=[False, 24]), Reason.ENTRY),
    "an offset in words": (with_entry(data_offsets=["0", "24"]), Reason.ENTRY),
    "an overlap": (with_entry(data_offsets=[4, 28]), Reason.OFFSETS),
    "a tensor on another": (replaced("[24, 30]", "[0, 6]"), Reason.OFFSETS),
    "a gap": (
        made({**parts()[0], "adapter/c": GAP}, parts()[1] + bytes(14)),
        Reason.OFFSETS,
    ),
    "beyond the end": (made(parts()[0], parts()[1][:-1]), Reason.OFFSETS),
    "bytes left over": (GOOD + b"\0", Reason.OFFSETS),
    "a name without a role": (replaced('"adapter/a"', '"a"'), Reason.ROLES),
    "a role untold": (replaced('"adapter/a"', '"other/a"'), Reason.ROLES),
    "another role": (other(TREE, "control"), Reason.ROLES),
    "a role too many": (pack({"adapter": TREE, "x": {}}, {}), Reason.ROLES),
    "no role": (pack({}, {}), Reason.ROLES),
    "a path for a name": (other({**TREE, "../../x": torch.ones(1)}), Reason.NAMES),
    "a name missing": (other({"a": TREE["a"]}), Reason.NAMES),
    "turned": (other({**TREE, "a": TREE["a"].T}), Reason.SHAPE),
    "flat": (other({**TREE, "a": TREE["a"].reshape(-1)}), Reason.SHAPE),
    "fp64": (other({**TREE, "a": TREE["a"].double()}), Reason.DTYPE),
    "integers": (other({**TREE, "a": TREE["a"].int()}), Reason.DTYPE),
}


def test_the_block_is_good_before_it_is_spoilt():
    for block in (GOOD, made(*parts()), bytearray(GOOD), memoryview(b"xy" + GOOD)[2:]):
        payload, envelope = unpack(block, WANTED)
        assert same(payload["adapter"], TREE)
        assert envelope == {"client": "c0", "loss": 0.5}
    payload["adapter"]["a"].add_(1)  # in memory of its own
    assert same(unpack(GOOD)[0]["adapter"], TREE)


@pytest.mark.parametrize("case", BAD)
def test_each_refusal_has_its_reason_and_repeats_little(case):
    block, reason = BAD[case]
    with pytest.raises(WireError) as caught:
        unpack(block, WANTED)
    assert caught.value.reason is reason
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii() or reason is Reason.JSON


def test_every_reason_of_a_block_is_tried():
    """Those of envelopes and of labels are tried with these."""
    tried = {reason for _, reason in BAD.values()} | {Reason.VALUE}
    assert tried == set(list(Reason)[: list(Reason).index(Reason.ENVELOPE)])


def test_a_truth_is_nought_or_one():
    good = pack({"r": {"t": torch.tensor([True, False])}}, {})
    assert unpack(good)[0]["r"]["t"].tolist() == [True, False]
    with pytest.raises(WireError) as caught:
        unpack(good[:-1] + b"\2")
    assert caught.value.reason is Reason.VALUE


def test_what_was_written_here_may_be_larger_and_not_finite():
    many = {f"r{i}": {"x" * 4000: torch.ones(1)} for i in range(80)}
    envelope = {"loss": float("nan"), "cap": float("inf")}
    found, said = unpack_own(pack(many, envelope))
    assert list(found) == list(many)
    assert said["loss"] != said["loss"]
    assert said["cap"] == float("inf")
    for bad in (pack(many, {}), pack({}, envelope)):
        with pytest.raises(WireError):
            unpack(bad)


def test_a_block_is_what_the_safetensors_library_writes():
    flat = {f"adapter/{name}": t for name, t in TREE.items()}
    text = '{"roles":["adapter"],"envelope":{"client":"c0","loss":0.5}}'
    assert save(flat, {"fedit": text}) == GOOD


def test_the_most_a_block_may_have_is_known_beforehand():
    assert largest(WANTED) == 8 + HEADER + 24 + 6
    with pytest.raises(WireError, match=r"at most 9\b"):
        unpack(GOOD, most=9)


def test_reading_takes_one_copy_of_the_numbers_and_packing_another():
    payload = {"adapter": {f"w{i}": torch.zeros(2**20) for i in range(8)}}
    size = 8 * 4 * 2**20

    def peak(do) -> float:
        tracemalloc.start()
        try:
            kept = do()
            return tracemalloc.get_traced_memory()[1] / size, kept
        finally:
            tracemalloc.stop()

    packing, block = peak(lambda: pack(payload, {}))
    reading, _ = peak(lambda: unpack(block))
    assert 0.9 < packing < 1.05
    assert 0.9 < reading < 1.05


def test_what_is_refused_allocates_nothing_for_what_it_claims():
    header, _ = parts()
    header["adapter/a"] |= {"shape": [2**45], "data_offsets": [0, 2**47]}
    tracemalloc.start()
    with pytest.raises(WireError):
        unpack(made(header, b""))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10**6


@given(st.text() | st.binary() | st.lists(st.text()) | st.integers(), st.integers(1, 50))
def test_a_quotation_is_bounded_and_printable(value, most):
    text = quoted(value, most)
    assert len(text) <= most + 1
    assert text.rstrip("…").isascii()
    assert text.isprintable()
