"""Sealed messages: what passes, and one refusal for everything else that may come."""

import stat
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit.core.errors import InputError
from fedit.core.strict import Reason, WireError
from fedit.engines import keys
from fedit.engines.keys import (
    fingerprint,
    load_key,
    load_public_key,
    new_key,
    save_key,
    save_public_key,
)
from fedit.engines.ledger import Ledger, Post
from fedit.engines.sealed import LABEL, ORDER, UPDATE, Label, Terms, read_label, seal

TERMS = Terms("0" * 31 + "7", "a" * 64, "b" * 64)
KEYS = {name: Ed25519PrivateKey.generate() for name in ("server", "c0", "c1", "stranger")}
PAYLOAD, ASKED = b"what a client sends", b"what the server asks"


def ledger(**more) -> Ledger:
    known = {name: KEYS[name].public_key() for name in ("c0", "c1")}
    return Ledger(TERMS, KEYS["server"], known, **more)


def post(client="c0", terms=TERMS, **more) -> Post:
    return Post(terms, client, KEYS[client], KEYS["server"].public_key(), **more)


def asked(book: Ledger, client="c0", round=3, attempt=1) -> bytes:
    return book.seal(client, round, attempt, ASKED)


def answer(order: bytes, by: Post, payload: bytes = PAYLOAD) -> bytes:
    return by.seal(by.take(order)[0], payload)


def forged(message: bytes, key: str, **changes) -> bytes:
    """The message with other words in its label, signed by that key."""
    label, _, payload = read_label(message)
    return seal(replace(label, **changes), KEYS[key]) + bytes(payload)


def refused(do, *given) -> WireError:
    with pytest.raises(WireError) as caught:
        do(*given)
    assert len(str(caught.value)) < 400
    return caught.value


def test_an_order_and_its_answer_pass_once():
    book = ledger()
    for round, attempt in ((0, 0), (0, 1), (1, 0)):
        orders = {client: asked(book, client, round, attempt) for client in ("c0", "c1")}
        for client, order in orders.items():
            label, payload = post(client).take(order)
            assert (label.round, label.attempt, bytes(payload)) == (round, attempt, ASKED)
            name, sent = book.admit(answer(order, post(client)), client)
            assert (name, bytes(sent)) == (client, PAYLOAD)


def test_every_order_has_a_nonce_of_its_own():
    book = ledger()
    nonces = [read_label(asked(book))[0].nonce for _ in range(100)]
    assert len(set(nonces)) == 100
    assert all(len(nonce) == 16 for nonce in nonces)


def other(**changes) -> Terms:
    return replace(TERMS, **changes)


SPOILT = {  # what becomes of a good update → reason, and the two values that the refusal names
    "cut short": (lambda m: m[:100], Reason.SIZE, ("100", str(LABEL))),
    "nothing": (lambda m: b"", Reason.SIZE, ("0 bytes", str(LABEL))),
    "the payload cut": (lambda m: m[:-1], Reason.SIZE, ("18", "19")),
    "the payload longer": (lambda m: m + b"x", Reason.SIZE, ("20", "19")),
    "another format": (lambda m: b"tidef\0" + m[6:], Reason.FORMAT, ("tidef", "fedit")),
    "another version": (lambda m: m[:6] + b"\2" + m[7:], Reason.FORMAT, ("2", "1")),
    "an unknown kind": (lambda m: m[:7] + b"\11" + m[8:], Reason.KIND, ("9", "1 to 5")),
    "an order for an update": (lambda m: forged(m, "c0", kind=ORDER), Reason.KIND, ("1", "2")),
    "a path for a client": (
        lambda m: m.replace(b"c0\0\0\0\0\0\0", b"../../c0", 1),
        Reason.CLIENT,
        ("../../c0", "no id"),
    ),
    "a newline after it": (lambda m: m.replace(b"c0\0", b"c0\n", 1), Reason.CLIENT, ("\\n",)),
    "a name behind the end": (lambda m: m.replace(b"c0\0\0", b"c0\0x"), Reason.CLIENT, ("c0",)),
    "an unknown client": (
        lambda m: forged(m, "stranger", client="stranger"),
        Reason.CLIENT,
        ("stranger", "c0, c1"),
    ),
    "a client as another": (
        lambda m: forged(m, "c0", client="c1"),
        Reason.SIGNATURE,
        (fingerprint(KEYS["c1"].public_key()),),
    ),
    "a stranger as a client": (
        lambda m: forged(m, "stranger"),
        Reason.SIGNATURE,
        (fingerprint(KEYS["c0"].public_key()),),
    ),
    "no signature": (lambda m: m[:-83] + bytes(64) + PAYLOAD, Reason.SIGNATURE, ("00000000",)),
    "another run": (
        lambda m: forged(m, "c0", terms=other(run="c" * 32)),
        Reason.RUN,
        ("c" * 32, TERMS.run),
    ),
    "another base": (
        lambda m: forged(m, "c0", terms=other(base="c" * 64)),
        Reason.BASE,
        ("c" * 64, TERMS.base),
    ),
    "another recipe": (
        lambda m: forged(m, "c0", terms=other(recipe="c" * 64)),
        Reason.RECIPE,
        ("c" * 64, TERMS.recipe),
    ),
    "an earlier round": (lambda m: forged(m, "c0", round=2), Reason.STALE, ("round 2", "round 3")),
    "a later round": (lambda m: forged(m, "c0", round=4), Reason.STALE, ("round 4", "round 3")),
    "another attempt": (
        lambda m: forged(m, "c0", attempt=0),
        Reason.STALE,
        ("attempt 0", "attempt 1"),
    ),
    "one that was not asked": (
        lambda m: forged(m, "c1", client="c1"),
        Reason.UNASKED,
        ("c1", "c0"),
    ),
    "another order": (lambda m: forged(m, "c0", answers=bytes(16)), Reason.ORDER, ("00" * 16,)),
    "another payload": (lambda m: m[:-1] + b"S", Reason.DIGEST, ("signed for was",)),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_update_is_refused_by_both_values_and_takes_no_place(case):
    spoil, reason, values = SPOILT[case]
    book = ledger()
    good = answer(asked(book), post())
    error = refused(book.admit, spoil(good))
    assert error.reason is reason
    assert all(value in str(error) for value in values)
    assert book.admit(good)[0] == "c0"


def test_every_byte_of_a_message_counts():
    book = ledger()
    good = answer(asked(book), post())
    for place in range(len(good)):
        spoilt = bytearray(good)
        spoilt[place] ^= 1
        refused(book.admit, bytes(spoilt))
    assert book.admit(good)[0] == "c0"


def test_who_brings_a_message_must_be_who_it_names():
    book = ledger()
    good = answer(asked(book), post())
    error = refused(book.admit, good, "c1")
    assert error.reason is Reason.IDENTITY
    assert "names c0, expected c1" in str(error)


def test_an_update_passes_once_and_its_client_once():
    book = ledger()
    by, order = post(), asked(book)
    label, _ = by.take(order)
    first, second = (by.seal(label, PAYLOAD) for _ in range(2))
    assert book.admit(first)[0] == "c0"
    error = refused(book.admit, first)
    assert error.reason is Reason.REPLAY
    assert read_label(first)[0].nonce.hex() in str(error)
    error = refused(book.admit, second)
    assert error.reason is Reason.DUPLICATE
    assert all(read_label(m)[0].nonce.hex() in str(error) for m in (first, second))


def test_nothing_that_was_recorded_fits_a_round_that_is_repeated():
    """After a restart the same round is asked again: an update of the earlier course is refused."""
    old, by = ledger(), post()
    recorded = answer(asked(old), by)
    book = ledger()
    order = asked(book)
    error = refused(book.admit, recorded)
    assert error.reason is Reason.ORDER
    assert read_label(order)[0].nonce.hex() in str(error)


def test_a_result_that_was_kept_may_answer_the_round_asked_again():
    """Its payload is sealed anew: no work is lost."""
    by, book = post(), ledger()
    answer(asked(ledger()), by)
    assert book.admit(answer(asked(book), by))[0] == "c0"


def test_before_the_first_order_nothing_passes():
    assert refused(ledger().admit, answer(asked(ledger()), post())).reason is Reason.STALE


ORDERS = {
    "from a client": (lambda m: forged(m, "c1"), Reason.SIGNATURE),
    "for another client": (lambda m: forged(m, "server", client="c1"), Reason.IDENTITY),
    "an update": (lambda m: forged(m, "server", kind=UPDATE), Reason.KIND),
    "of another run": (lambda m: forged(m, "server", terms=other(run="c" * 32)), Reason.RUN),
    "on another base": (lambda m: forged(m, "server", terms=other(base="c" * 64)), Reason.BASE),
    "by another recipe": (
        lambda m: forged(m, "server", terms=other(recipe="c" * 64)),
        Reason.RECIPE,
    ),
    "changed on its way": (lambda m: m[:-1] + b"x", Reason.DIGEST),
}


@pytest.mark.parametrize("case", ORDERS)
def test_a_client_refuses_an_order(case):
    spoil, reason = ORDERS[case]
    good, by = asked(ledger()), post()
    assert refused(by.take, spoil(good)).reason is reason
    assert bytes(by.take(good)[1]) == ASKED
    assert refused(by.take, good).reason is Reason.REPLAY


def test_an_order_is_taken_once_even_after_a_restart(tmp_path):
    path, book = tmp_path / "taken", ledger()
    first, second = asked(book), asked(book)
    post(taken=path).take(first)
    with path.open("ab") as file:
        file.write(b"cut off")
    again = post(taken=path)
    assert refused(again.take, first).reason is Reason.REPLAY
    again.take(second)
    last = post(taken=path)
    assert {refused(last.take, order).reason for order in (first, second)} == {Reason.REPLAY}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(InputError, match=r"taken.*cannot be read"):
        post(taken=path / "x")


def test_the_server_asks_only_whom_it_knows():
    with pytest.raises(InputError, match=r"client stranger.*enrol"):
        ledger().seal("stranger", 0, 0, ASKED)


@pytest.mark.parametrize(
    "words", [("7", "a" * 64, "b" * 64), ("0" * 32, "A" * 64, "b" * 64), ("0" * 32, "a" * 64, "")]
)
def test_terms_are_hashes(words):
    with pytest.raises(InputError, match=r"must be (32|64) small hex digits"):
        Terms(*words)


def test_a_label_speaks_of_a_clients_id():
    label = read_label(asked(ledger()))[0]
    for client in ("", "C0", "c0\n", "../x", "c" * 65):
        with pytest.raises(InputError, match="must be like"):
            replace(label, client=client).packed()


ids = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True)
hexes = {n: st.binary(min_size=n, max_size=n).map(bytes.hex) for n in (16, 32)}
labels = st.builds(
    Label,
    st.sampled_from([ORDER, UPDATE]),
    st.builds(Terms, hexes[16], hexes[32], hexes[32]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    ids,
    *(st.binary(min_size=n, max_size=n) for n in (16, 16, 32)),
    st.just(len(PAYLOAD)),
)


@given(labels)
def test_a_label_comes_back(label):
    message = seal(label, KEYS["c0"]) + PAYLOAD
    got, signature, payload = read_label(message)
    assert (got, bytes(payload)) == (label, PAYLOAD)
    KEYS["c0"].public_key().verify(signature, label.packed())


@settings(max_examples=300)
@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda b: b"fedit\0\1\2" + b))
def test_random_bytes_are_refused(message):
    refused(ledger().admit, message)


# ---- keys


def test_a_key_is_written_for_its_owner_alone_and_comes_back(tmp_path):
    key, path = new_key(), tmp_path / "c0.key"
    save_key(key, path)
    save_public_key(key.public_key(), tmp_path / "c0.pub")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path).private_bytes_raw() == key.private_bytes_raw()
    public = load_public_key(tmp_path / "c0.pub")
    assert public.public_bytes_raw() == key.public_key().public_bytes_raw()
    assert fingerprint(public) == fingerprint(key.public_key())
    for save, what in ((save_key, key), (save_public_key, key.public_key())):
        with pytest.raises(InputError, match=r"c0\.key: there is a file already"):
            save(what, path)
    with pytest.raises(InputError, match="cannot be written"):
        save_key(key, tmp_path / "nowhere" / "c0.key")


def test_a_key_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "c0.key"
    save_key(new_key(), path)
    path.chmod(0o640)
    with pytest.raises(
        InputError, match=r"c0\.key: others may use the file \(mode 640\); chmod 600"
    ):
        load_key(path)


def test_what_is_no_key_is_refused_by_its_files_name(tmp_path):
    path = tmp_path / "x.key"
    for load in (load_key, load_public_key):
        with pytest.raises(InputError, match=r"x\.key: cannot be read \(No such file"):
            load(path)
    path.touch(mode=0o600)
    elliptic = generate_private_key(SECP256R1())
    text = elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content, load, word in (
        (b"", load_key, "no private key"),
        (b"\xff\0", load_public_key, "no public key"),
        (text, load_key, "no Ed25519 key"),
        (text, load_public_key, "no public key"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"x\.key.*{word}"):
            load(path)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(keys, "find_spec", lambda name: None)
    for need in (new_key, ledger, post):
        with pytest.raises(InputError, match=r"pip install 'fedit\[federation\]'"):
            need()
