"""Codes against numpy in float64, and everything that a stranger may get wrong."""

import json
import math

import numpy as np
import pytest
import torch

from fedit.core.bits import apart, joined
from fedit.core.codes import Bf16, Largest, Unfit, Whole, code_of
from fedit.core.tree import same, spec

CODES = {
    "bf16": Bf16(),
    "int8": Whole(8, 5),
    "int4": Whole(4, 5),
    "int4-wide": Whole(4, 64),
    "int3": Whole(3, 5),
    "int2": Whole(2, 5),
    "topk": Largest(0.2),
    "topk-all": Largest(1.0),
}
every = pytest.mark.parametrize("code", CODES.values(), ids=CODES.keys())


def tree(seed: int = 0) -> dict[str, torch.Tensor]:
    """Odd sizes, unlike magnitudes, names out of order."""
    rng = torch.Generator().manual_seed(seed)
    shapes = {"q.b": (7, 3), "q.a": (2, 9), "norm": (), "empty": (0, 4), "k.a": (1, 13)}
    size = {"q.b": 1e-4, "k.a": 1e3}
    return {n: torch.randn(s, generator=rng) * size.get(n, 1.0) for n, s in shapes.items()}


def flat(of) -> np.ndarray:
    return np.concatenate([of[name].numpy().reshape(-1) for name in sorted(of)])


def bf16(values: np.ndarray, up: bool = False) -> np.ndarray:
    """Rounded to 8 significant bits, by hand: to the nearest (ties to even), or up."""
    fraction, exponent = np.frexp(values.astype(np.float64))
    scaled = fraction * 2.0**8
    return np.ldexp((np.ceil(scaled) if up else np.round(scaled)) / 2.0**8, exponent)


@every
@pytest.mark.parametrize("rng", [None, 3], ids=["nearest", "drawn"])
def test_what_is_packed_has_the_spec_foretold_and_is_unpacked_to_the_trees(code, rng):
    packed = code.pack(tree(), None if rng is None else np.random.default_rng(rng))
    assert spec(packed) == code.packed(spec(tree()))
    found = code.unpack(packed, spec(tree()))
    assert spec(found) == spec(tree())
    assert list(found) == list(tree())


@every
def test_the_same_draws_give_the_same_bytes_and_a_code_is_known_by_its_words(code):
    said = code_of(json.loads(json.dumps(code.words())))
    assert said == code
    one, other = (c.pack(tree(), np.random.default_rng(1)) for c in (code, said))
    assert same(one, other)


def test_bf16_is_the_nearest():
    found = Bf16().unpack(Bf16().pack(tree()), spec(tree()))
    assert np.array_equal(flat(found), bf16(flat(tree())).astype(np.float32))


@pytest.mark.parametrize("bits", [8, 6, 5, 4, 3, 2])
@pytest.mark.parametrize("group", [1, 5, 64])
def test_whole_numbers_are_those_of_numpy(bits, group):
    """Each tensor by itself, its groups one after another, scales rounded up, low bits first."""
    top, code = 2 ** (bits - 1) - 1, Whole(bits, group)
    codes, scales, values = [], [], []
    for _, tensor in sorted(tree().items()):
        numbers = tensor.numpy().astype(np.float64).reshape(-1)
        for start in range(0, len(numbers), group):
            part = numbers[start : start + group]
            scale = float(bf16(np.array([np.abs(part).max() / top]), up=True)[0])
            ratio = (part / scale).astype(np.float32)
            codes.append(np.rint(ratio).astype(int))
            scales.append(scale)
            values.append(codes[-1] * scale)
            assert np.abs(part - values[-1]).max() <= scale / 2 * (1 + 1e-6)
    codes = np.concatenate(codes)
    packed = code.pack(tree())
    assert np.array_equal(packed["scales"].float().numpy(), np.array(scales, dtype=np.float32))
    bits_of_all = "".join(f"{int(q) % 2**bits:0{bits}b}"[::-1] for q in codes)
    bits_of_all += "0" * (-len(bits_of_all) % 8)
    joined = [int(bits_of_all[i : i + 8][::-1], 2) for i in range(0, len(bits_of_all), 8)]
    assert packed["codes"].tolist() == joined
    expected = np.concatenate(values).astype(np.float32)
    assert np.array_equal(flat(code.unpack(packed, spec(tree()))), expected)


@pytest.mark.parametrize("bits", [8, 6, 5, 4, 3, 2])
def test_rounding_at_random_is_right_in_the_mean(bits):
    """Of n draws the mean lies within 5 standard errors, each at most s / (2 √n), of every number."""
    code, draws = Whole(bits, 16), 4000
    one = {"w": torch.randn(64, generator=torch.Generator().manual_seed(5))}
    rng = np.random.default_rng(11)
    found = np.mean(
        [code.unpack(code.pack(one, rng), spec(one))["w"].double().numpy() for _ in range(draws)], 0
    )
    steps = code.pack(one)["scales"].float().repeat_interleave(16).numpy()
    assert (np.abs(found - one["w"].numpy()) < 5 * steps / (2 * math.sqrt(draws))).all()
    nearest = code.unpack(code.pack(one), spec(one))["w"].numpy()
    if bits < 8:  # which to the nearest is not so
        assert np.abs(nearest - one["w"].numpy()).max() > 5 * steps.max() / (2 * math.sqrt(draws))


@pytest.mark.parametrize("bits", [8, 6, 5, 4, 3, 2])
def test_a_drawn_number_is_one_of_its_neighbours(bits):
    one = tree()
    found = Whole(bits, 5).unpack(Whole(bits, 5).pack(one, np.random.default_rng(2)), spec(one))
    for name, values in one.items():
        if values.numel():
            step = values.abs().max() / (2 ** (bits - 1) - 1) * 1.01  # scales are rounded up
            assert float((found[name] - values).abs().max()) < step


@every
def test_zeros_stay_zeros_and_very_small_and_large_numbers_do_no_harm(code):
    zeros = {"w": torch.zeros(9)}
    assert same(code.unpack(code.pack(zeros, np.random.default_rng(0)), spec(zeros)), zeros)
    odd = {"w": torch.tensor([1e-45, -3e38, 1e-30, 0.0, 1.0])}
    found = code.unpack(code.pack(odd, np.random.default_rng(0)), spec(odd))["w"]
    assert bool(torch.isfinite(found).all())


def test_the_largest_are_those_of_each_tensor_and_the_first_of_equals():
    share = 0.2
    found = Largest(share).unpack(Largest(share).pack(tree()), spec(tree()))
    for name, values in tree().items():
        numbers = values.numpy().reshape(-1)
        count = max(1, math.floor(share * len(numbers) + 0.5)) if len(numbers) else 0
        kept = sorted(range(len(numbers)), key=lambda i: (-abs(numbers[i]), i))[:count]
        expected = np.zeros(len(numbers))
        expected[kept] = bf16(numbers[kept])
        assert np.array_equal(found[name].numpy().reshape(-1), expected.astype(np.float32))
    equal = Largest(0.5).unpack(Largest(0.5).pack({"w": torch.ones(6)}), spec({"w": torch.ones(6)}))
    assert equal["w"].tolist() == [1, 1, 1, 0, 0, 0]


def test_places_beyond_two_bytes_are_found():
    wide = {"a": torch.zeros(70_000), "b": torch.zeros(200_000)}
    wide["a"][[3, 69_999]] = torch.tensor([1.0, -2.0])
    wide["b"][[65_536, 199_999]] = torch.tensor([3.0, 4.0])
    code = Largest(1e-5)
    packed = code.pack(wide)
    assert packed["counts"].tolist() == [0, 1, 1, 0, 1]
    found = code.unpack(packed, spec(wide))
    assert found["a"].nonzero().tolist() == [[69_999]]
    assert found["b"].nonzero().tolist() == [[65_536], [199_999]]


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_many_numbers_are_laid_bit_by_bit_in_pieces_as_at_once(bits, monkeypatch):
    top = 2 ** (bits - 1) - 1
    whole = torch.from_numpy(np.random.default_rng(0).integers(-top, top + 1, 77).astype(np.int8))
    at_once = joined(whole, bits)
    monkeypatch.setattr("fedit.core.bits._AT_ONCE", 8)
    assert torch.equal(joined(whole, bits), at_once)
    assert torch.equal(apart(at_once, bits, 77), whole)


SHORT = {"w": torch.tensor([1.0, -2.0, 3.0, 0.5, 7.0])}
BROKEN = {
    "another part": (Bf16(), {"other": torch.zeros(1)}, "names"),
    "too few": (Bf16(), {"values": torch.zeros(4, dtype=torch.bfloat16)}, "shape"),
    "not flat": (Bf16(), {"values": torch.zeros(1, 5, dtype=torch.bfloat16)}, "shape"),
    "in fp32": (Bf16(), {"values": torch.zeros(5)}, "dtype"),
    "too many groups": (Whole(8, 2), {"scales": torch.zeros(4, dtype=torch.bfloat16)}, "shape"),
    "scales in fp32": (Whole(8, 2), {"scales": torch.zeros(3)}, "dtype"),
    "codes of another width": (Whole(4, 2), {"codes": torch.zeros(5, dtype=torch.uint8)}, "shape"),
    "codes with a sign": (Whole(8, 2), {"codes": torch.zeros(5, dtype=torch.int8)}, "dtype"),
    "-4": (Whole(3, 2), {"codes": torch.tensor([4, 0]).to(torch.uint8)}, "packed"),
    "a bit too many": (Whole(3, 2), {"codes": torch.tensor([0, 128]).to(torch.uint8)}, "packed"),
    "negative scale": (Whole(8, 2), {"scales": torch.tensor([1, -1, 1.0]).bfloat16()}, "packed"),
    "scale without a number": (
        Whole(4, 2),
        {"scales": torch.tensor([1, math.nan, 1.0]).bfloat16()},
        "packed",
    ),
    "infinite scale": (Whole(4, 2), {"scales": torch.full((3,), math.inf).bfloat16()}, "packed"),
    "-128": (Whole(8, 2), {"codes": torch.tensor([0, 0, 128, 0, 0]).to(torch.uint8)}, "packed"),
    "-8": (Whole(4, 2), {"codes": torch.tensor([0, 8, 0]).to(torch.uint8)}, "packed"),
    "half a byte too many": (
        Whole(4, 2),
        {"codes": torch.tensor([0, 0, 16]).to(torch.uint8)},
        "packed",
    ),
    "one place fewer": (Largest(0.4), {"places": torch.tensor([1]).to(torch.uint16)}, "shape"),
    "a place twice": (Largest(0.4), {"places": torch.tensor([1, 1]).to(torch.uint16)}, "packed"),
    "out of order": (Largest(0.4), {"places": torch.tensor([2, 1]).to(torch.uint16)}, "packed"),
    "beyond the end": (Largest(0.4), {"places": torch.tensor([1, 5]).to(torch.uint16)}, "packed"),
    "counts too low": (Largest(0.4), {"counts": torch.tensor([1]).to(torch.int32)}, "packed"),
    "counts too high": (Largest(0.4), {"counts": torch.tensor([2**31 - 1]).int()}, "packed"),
    "a count below 0": (Largest(0.4), {"counts": torch.tensor([-1]).to(torch.int32)}, "packed"),
    "counts of two blocks": (Largest(0.4), {"counts": torch.tensor([1, 1]).int()}, "shape"),
}


@pytest.mark.parametrize("case", BROKEN.values(), ids=BROKEN.keys())
def test_what_cannot_be_a_packed_tree_is_refused_with_a_reason(case):
    code, change, reason = case
    packed = code.pack(SHORT)
    code.unpack(packed, spec(SHORT))  # is whole as it is
    broken = change if "other" in change else {**packed, **change}
    with pytest.raises(Unfit) as refused:
        code.unpack(broken, spec(SHORT))
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    "words",
    [
        None,
        {},
        {"kind": "int8"},
        {"kind": "int8", "group": 0},
        {"kind": "int8", "group": True},
        {"kind": "int8", "group": 64.0},
        {"kind": "int7", "group": 64},
        {"kind": "topk", "share": 0.0},
        {"kind": "topk", "share": 1},
        {"kind": "bf16", "more": 1},
    ],
)
def test_words_of_no_code_are_refused(words):
    with pytest.raises(ValueError, match="no code"):
        code_of(words)
