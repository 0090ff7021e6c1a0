"""The fast way through a model gives what the model's own code gives, on every architecture and adapter."""

import copy
from itertools import product

import pytest
import torch

from fedit.train import attention
from fedit.train.adapters import attach
from fedit.train.forward import Forward, make_forward, pack
from tests.zoo import ADAPTERS, ARCHITECTURES, adapted, made, rows, stirred

CPU = torch.device("cpu")
ROWS = rows((3, 4), (9, 2), (1, 6), (5, 1))
CANNOT = {  # no bias to train, or refused by PEFT
    ("llama", "bitfit"),
    ("mistral", "bitfit"),
    ("gemma2", "bitfit"),
    ("mixtral", "bitfit"),
    ("mixtral", "dora"),
    ("mixtral", "lora_xs"),
    ("falcon", "prefix"),
}
VIRTUAL = ("prefix", "prompt")
PACKED = ("llama", "gpt2", "opt", "qwen2", "mistral", "gpt_neox", "phi", "mixtral")


def fast(one, adapter="lora"):
    return make_forward(one.model, 0, CPU, fused=True, virtual=adapter in VIRTUAL)


def stirred_up(kind, adapter="lora", **options):
    """An adapter whose every number matters."""
    one = adapted(kind, adapter, **options)
    one.write(stirred(one.read(), by=0.05))
    return one


def losses_and_gradients(forward, one, given=ROWS):
    for parameter in one.parameters.values():
        parameter.grad = None
    losses, places = forward.losses(given)
    (losses * torch.linspace(0.5, 1.5, len(losses))).sum().backward()
    gradients = {n: p.grad.clone() for n, p in one.parameters.items() if p.grad is not None}
    return losses.detach(), places, gradients


@pytest.mark.parametrize(
    ("kind", "adapter"), [p for p in product(ARCHITECTURES, ADAPTERS) if p not in CANNOT]
)
def test_same_losses_and_gradients_as_padded_rows_through_the_models_own_code(kind, adapter):
    one = stirred_up(kind, adapter)
    wanted, places, gradients = losses_and_gradients(Forward(one.model, 0, CPU), one)
    forward = fast(one, adapter)
    assert forward.packs == (kind in PACKED and adapter not in VIRTUAL), "the fast way is taken"
    found, in_row, ours = losses_and_gradients(forward, one)
    assert torch.equal(places, in_row)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == ours.keys()
    largest = max(float(g.abs().max()) for g in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_with_a_bf16_base_it_is_as_near_to_fp32_as_the_models_own_code(targets):
    """Same weights, bf16: our error against fp32 is at most a little above that of padded rows."""
    plan = ADAPTERS["lora"].model_copy(update={"targets": targets})
    base = made("llama", precision="fp32")
    base.model.to(torch.bfloat16)  # round once, so that both precisions have the same weights
    exact = attach(copy.deepcopy(base.model).float(), plan, 0)
    tree = stirred(exact.read(), by=0.05)
    exact.write(tree)
    wanted, _, gradients = losses_and_gradients(Forward(exact.model.eval(), 0, CPU), exact)
    errors = []
    for fused in (False, True):
        one = attach(copy.deepcopy(base.model), plan, 0)
        one.write(tree)
        forward = make_forward(one.model.eval(), 0, CPU, fused=fused)
        assert forward.packs == fused
        found, _, ours = losses_and_gradients(forward, one)
        assert found.dtype == torch.float32
        assert all(gradient.dtype == torch.float32 for gradient in ours.values())
        off = sum(float((ours[n] - g).square().sum()) for n, g in gradients.items())
        size = sum(float(g.square().sum()) for g in gradients.values())
        errors.append((float((found - wanted).abs().mean()), (off / size) ** 0.5))
    (usual_loss, usual_gradient), (our_loss, our_gradient) = errors
    assert our_loss <= 2 * usual_loss
    assert our_gradient <= 2 * usual_gradient
    assert our_gradient < 0.05


def test_rows_of_one_token_and_rows_with_nothing_to_learn_stand_among_others():
    one = stirred_up("llama")
    odd = [*rows((1, 0)), *ROWS[:2], *rows((4, 0)), *rows((1, 1))]
    wanted, places, _ = losses_and_gradients(Forward(one.model, 0, CPU), one, odd)
    found, in_row, _ = losses_and_gradients(fast(one), one, odd)
    assert places.tolist() == in_row.tolist()
    assert set(places.tolist()) == {1, 2, 4}
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("given", [ROWS, rows((9, 9), (2, 3), (20, 7))])
@pytest.mark.parametrize(
    ("kind", "window"),
    [
        ("mistral", {"sliding_window": 12}),
        ("llama4_text", {"attention_chunk_size": 12}),
        ("doge", {"sliding_window": 12}),
    ],
)
def test_a_window_shorter_than_a_row_is_kept(kind, window, given):
    """Wherever it is expressed: in an option of the attention, or in its mask alone."""
    plan = ADAPTERS["lora"].model_copy(update={"targets": ["q_proj", "v_proj"]})
    one = attach(made(kind, **window).model.eval(), plan, 0)
    one.write(stirred(one.read(), by=0.05))
    wanted, _, gradients = losses_and_gradients(Forward(one.model, 0, CPU), one, given)
    forward = fast(one)
    found, _, ours = losses_and_gradients(forward, one, given)
    assert forward.window <= 12
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_layer_that_carries_something_from_row_to_row_is_left_padded(precision):
    """A convolution over time: in bf16 its leak is smaller than rounding, and is found all the same."""
    layers = ["conv", "full_attention"]
    base = made("lfm2", precision, layer_types=layers, block_auto_adjust_ff_dim=False)
    assert not make_forward(base.model.eval(), 0, CPU, fused=True).packs


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`:FutureWarning")
def test_gradient_checkpointing_gives_the_same():
    one = stirred_up("llama")
    wanted, _, gradients = losses_and_gradients(fast(one), one)
    one.model.train()
    one.model.gradient_checkpointing_enable({"use_reentrant": False})
    one.model.enable_input_require_grads()
    found, _, ours = losses_and_gradients(fast(one), one)
    torch.testing.assert_close(found, wanted)
    for name, gradient in gradients.items():
        torch.testing.assert_close(ours[name], gradient)


def test_an_adapter_that_is_switched_off_is_off():
    one = stirred_up("llama")
    forward = fast(one)
    with one.model.disable_adapter(), torch.no_grad():
        off, _ = forward.losses(ROWS)
        wanted, _ = Forward(one.model, 0, CPU).losses(ROWS)
    torch.testing.assert_close(off, wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(off, forward.losses(ROWS)[0].detach())


def test_generation_after_it_is_what_it_was():
    one = stirred_up("qwen2")
    ids = torch.tensor([[7, 9, 11, 13]])
    wanted = one.model.generate(input_ids=ids, max_new_tokens=8, do_sample=False)
    assert fast(one).packs
    found = one.model.generate(input_ids=ids, max_new_tokens=8, do_sample=False)
    assert found.tolist() == wanted.tolist()


def test_what_changes_scores_in_a_way_unknown_is_refused():
    states = torch.zeros(1, 2, 5, 4)
    with pytest.raises(NotImplementedError, match="softcap"):
        attention.attend(torch.nn.Identity(), states, states, states, None, (2, 3), softcap=30.0)


@pytest.mark.parametrize("block", [1, 3, 5, 8, 9, 100])
def test_attention_in_blocks_is_attention(block, monkeypatch):
    monkeypatch.setattr(attention, "_BLOCK", block)
    rng, lengths = torch.Generator().manual_seed(0), (8, 1, 9, 3)
    q, k, v = (torch.randn(heads, 21, 4, generator=rng, dtype=torch.float64) for heads in (6, 2, 2))
    inputs = [t.requires_grad_() for t in (q, k, v)]
    found = attention.Causal.apply(*inputs, lengths, 0.3)
    parts = []
    for own in attention._examples(lengths):
        whole = (q[:, own], k[:, own].repeat_interleave(3, 0), v[:, own].repeat_interleave(3, 0))
        parts.append(
            torch.nn.functional.scaled_dot_product_attention(*whole, is_causal=True, scale=0.3)
        )
    wanted, way = torch.cat(parts, 1).transpose(0, 1), torch.randn(21, 6, 4, generator=rng)
    torch.testing.assert_close(found, wanted)
    for mine, usual in zip(
        torch.autograd.grad(found, inputs, way.double()),
        torch.autograd.grad(wanted, inputs, way.double()),
        strict=True,
    ):
        torch.testing.assert_close(mine, usual)


def test_a_dropout_leaves_lora_to_its_own_code():
    one = adapted("llama", "lora")
    layer = next(m for m in one.model.modules() if hasattr(m, "lora_dropout"))
    layer.lora_dropout["default"] = torch.nn.Dropout(0.5)
    fast(one)
    others = [m for m in one.model.modules() if hasattr(m, "lora_dropout") and m is not layer]
    assert "forward" not in vars(layer)
    assert all("forward" in vars(other) for other in others)


def test_packed_rows_begin_their_positions_anew():
    packed = pack(rows((2, 3), (1, 2)))
    assert packed.positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert packed.lengths == (5, 3)
    assert packed.before.tolist() == [1, 2, 3, 5, 6]
    assert packed.places.tolist() == [0, 0, 0, 1, 1]
