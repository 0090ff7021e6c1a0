"""LoRA-XS and, with FedAvg over it, Fed-SB: only R trains and travels, and its mean is exact."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from peft.tuners.lora.layer import Linear
from safetensors.torch import load_file

from fedit import estimate, run
from fedit.config import LoraXs
from fedit.core.errors import InputError
from fedit.runner import Run
from fedit.train.adapters import attach
from fedit.train.forward import Forward, make_forward
from fedit.train.lora_xs import Core, principal
from tests.test_config import refusal
from tests.tiny import CONFIG, tiny
from tests.zoo import logits, made, rows, stirred

RANK = 3
PLAN = LoraXs(kind="lora_xs", rank=RANK, alpha=6.0)


def on(kind="llama", **changes):
    one = attach(made(kind).model, PLAN.model_copy(update=changes), 0)
    one.model.eval()
    return one


def fixed(one):
    """A and B of every layer, by name."""
    return {
        n: t.clone()
        for n, t in one.model.named_buffers()
        if n.endswith(("lora_A.default.weight", "lora_B.default.far"))
    }


def weight_of(one, layer):
    return one.model.get_submodule(layer).base_layer.weight.detach().double().numpy()


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_factors_are_those_of_the_weights_own_decomposition(kind):
    """B A is the best approximation of rank r (Eckart and Young), A has orthonormal rows."""
    one = on(kind)
    found, layers = fixed(one), {n.split(".lora_")[0] for n in one.parameters}
    assert len(found) == 2 * len(layers)
    for layer in layers:
        w = weight_of(one, layer)
        w = w.T if kind == "gpt2" else w
        a = found[f"{layer}.lora_A.default.weight"].double().numpy()
        b = found[f"{layer}.lora_B.default.far"].double().numpy()
        u, s, v = np.linalg.svd(w, full_matrices=False)
        best = u[:, :RANK] * s[:RANK] @ v[:RANK]
        np.testing.assert_allclose(b @ a, best, atol=2e-6 * s[0])
        np.testing.assert_allclose(a @ a.T, np.eye(RANK), atol=1e-6)
        np.testing.assert_allclose(b.T @ b, np.diag(s[:RANK] ** 2), atol=1e-5 * s[0] ** 2)


def test_the_change_of_a_layer_is_s_b_r_a():
    one = on()
    one.write(stirred(one.read(), by=1.0))
    layer = "base_model.model.model.layers.0.mlp.down_proj"
    found = fixed(one)
    a, b = (found[f"{layer}.lora_{x}"].double() for x in ("A.default.weight", "B.default.far"))
    r = one.read()[f"{layer}.lora_B.core"].double()
    wanted = torch.from_numpy(weight_of(one, layer)) + PLAN.alpha / RANK * b @ r @ a
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        said = one.model.get_submodule(layer)(x).double()
    torch.testing.assert_close(said, x.double() @ wanted.T, rtol=1e-5, atol=1e-6)


def test_untrained_it_is_the_base_and_only_r_is_a_parameter():
    one = on()
    assert torch.equal(logits(one.model), logits(made().model.eval()))
    assert {tuple(p.shape) for p in one.parameters.values()} == {(RANK, RANK)}
    assert all(not p.any() for p in one.parameters.values())
    assert sum(p.requires_grad for p in one.model.parameters()) == len(one.parameters)


def test_the_factors_depend_on_neither_seed_nor_threads():
    first = fixed(on())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        state = torch.get_rng_state()
        again = fixed(attach(made().model, PLAN, 7))
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.get_rng_state(), state), "the global generator moved"
    finally:
        torch.set_num_threads(threads)
    assert first.keys() == again.keys()
    assert all(torch.equal(t, again[n]) for n, t in first.items())


def test_signs_are_fixed_and_a_rank_beyond_the_layer_is_filled_with_zeros():
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    a, b = principal(weight, 9)
    assert (a.shape, b.shape) == ((9, 6), (4, 9))
    torch.testing.assert_close(b @ a, weight, rtol=1e-5, atol=1e-6)
    assert not a[4:].any()
    assert not b[:, 4:].any()
    assert all(row[row.abs().argmax()] > 0 for row in a[:4])


def test_of_a_large_weight_a_sketch_finds_the_same_factors(monkeypatch):
    """The singular values fall, as those of trained weights do."""
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.normal(size=(90, 60)))
    v, _ = np.linalg.qr(rng.normal(size=(60, 60)))
    weight = torch.from_numpy(u * 0.8 ** np.arange(60) @ v.T)
    whole = principal(weight, RANK)
    monkeypatch.setattr("fedit.train.lora_xs._WHOLE", 50)
    monkeypatch.setattr("fedit.train.lora_xs.factored", None)
    for found, wanted in zip(principal(weight, RANK), whole, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_the_fast_way_is_taken_and_gives_the_same_gradients():
    one = on()
    one.write(stirred(one.read(), by=0.3))
    given = rows((3, 4), (2, 6))
    plain = Forward(one.model, 0, torch.device("cpu")).losses(given)[0]
    wanted = torch.autograd.grad(plain.sum(), list(one.parameters.values()))
    forward = make_forward(one.model, 0, torch.device("cpu"), fused=True)
    assert forward.packs
    layers = [module for module in one.model.modules() if isinstance(module, Linear)]
    assert len(layers) == 14
    assert all("forward" in vars(layer) for layer in layers), "each has the fast form"
    found = torch.autograd.grad(forward.losses(given)[0].sum(), list(one.parameters.values()))
    for gradient, theirs in zip(found, wanted, strict=True):
        assert theirs.any()
        torch.testing.assert_close(gradient, theirs, rtol=1e-4, atol=1e-4)


def test_r_has_the_gradient_of_the_formula():
    core = Core(torch.randn(5, RANK, generator=torch.Generator().manual_seed(1)))
    a = torch.randn(RANK, 4, generator=torch.Generator().manual_seed(2))
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(3))
    out = core(x @ a.T)
    g = torch.randn(7, 5, generator=torch.Generator().manual_seed(4))
    out.backward(g)
    b, g, x, a = (t.detach().double().numpy() for t in (core.far, g, x, a))
    np.testing.assert_allclose(core.core.grad.numpy(), b.T @ (g.T @ x) @ a.T, rtol=1e-4, atol=1e-5)


def test_the_mean_of_r_is_exact_and_the_factors_never_travel(tmp_path):
    """Fed-SB: s B (Σ p_k R_k) A = Σ p_k s B R_k A, on weights of a real run."""
    plan = tiny(tmp_path / "run", adapter={"kind": "lora_xs", "rank": 2}, federation={"rounds": 1})
    with Run(plan) as opened:
        before = fixed(opened.job.adapted)
        seen = []
        ask = opened.job.engine.ask

        class Tapped:
            def clients(self):
                return opened.job.engine.clients()

            def ask(self, order):
                for reply in ask(order):
                    seen.append((reply, order.weights))
                    yield reply

        done = list(opened.rounds(lambda engine: Tapped()))
        after = fixed(opened.job.adapted)
    assert before.keys() == after.keys()
    assert all(torch.equal(t, after[n]) for n, t in before.items())
    updates = [(reply, weights[reply.client]) for reply, weights in seen]
    assert len(updates) == 2
    whole = sum(weight for _, weight in updates)
    assert {
        tuple(t.shape) for update, _ in updates for t in update.payload["adapter"].values()
    } == {(2, 2)}
    for name, mean in done[-1].adapter.items():
        layer = name.removesuffix(".lora_B.core")
        a = before[f"{layer}.lora_A.default.weight"].double().numpy()
        b = before[f"{layer}.lora_B.default.far"].double().numpy()
        each = [
            weight / whole * (b @ update.payload["adapter"][name].double().numpy() @ a)
            for update, weight in updates
        ]
        assert np.abs(each[0]).max() > 0
        largest = np.abs(sum(each)).max()
        np.testing.assert_allclose(b @ mean.double().numpy() @ a, sum(each), atol=1e-6 * largest)
    numbers = sum(t.numel() for t in done[-1].adapter.values())
    assert done[-1].record["bytes_up"] < 2 * (4 * numbers + 4096)


def test_it_is_saved_as_an_ordinary_lora_adapter(tmp_path):
    one = on("gpt2")
    one.write(stirred(one.read()))
    one.save(tmp_path, "some/base")
    saved = load_file(tmp_path / "adapter_model.safetensors")
    layer = "base_model.model.transformer.h.0.attn.c_attn"
    torch.testing.assert_close(
        saved[f"{layer}.lora_B.weight"],
        fixed(one)[f"{layer}.lora_B.default.far"] @ one.read()[f"{layer}.lora_B.core"],
    )
    assert {name.split(".lora_")[1] for name in saved} == {"A.weight", "B.weight"}
    theirs = PeftModel.from_pretrained(made("gpt2").model, tmp_path)
    theirs.eval()
    torch.testing.assert_close(logits(theirs), logits(one.model), rtol=1e-5, atol=1e-5)


def test_killed_and_resumed_it_ends_with_the_same_bytes(tmp_path):
    changes = {"adapter": {"kind": "lora_xs", "rank": 2}, "federation": {"rounds": 2}}

    def result(folder: Path) -> bytes:
        return (folder / "adapter" / "adapter_model.safetensors").read_bytes()

    for _ in run(tiny(tmp_path / "whole", **changes)):
        pass
    for done in run(tiny(tmp_path / "cut", **changes)):
        if done.round == 1:
            break
    for _ in run(tiny(tmp_path / "cut", **changes), resume=True):
        pass
    assert result(tmp_path / "cut") == result(tmp_path / "whole")


def test_a_quantised_base_is_refused():
    message = refusal(adapter="lora_xs", model={"base": "some/base", "quantise": "int8"})
    assert "adapter.kind lora_xs decomposes the base's weights" in message


def test_experts_in_one_tensor_are_refused_and_named_layers_are_not():
    with pytest.raises(InputError, match=r"not all of it are linear layers, so name those meant"):
        attach(made("mixtral").model, PLAN, 0)
    plan = PLAN.model_copy(update={"targets": ["q_proj"]})
    assert len(attach(made("mixtral").model, plan, 0).parameters) == 2


def test_an_estimate_counts_r_alone(tmp_path):
    plan = tiny(tmp_path / "run", adapter={"kind": "lora_xs", "rank": 2}, model={"config": CONFIG})
    found = estimate(plan, calibrated=False).to_dict()
    assert found["parameters"]["adapter"] == 2 * 7 * 4, "two layers of seven, two by two"
