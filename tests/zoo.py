"""Small models of many architectures, adapters of every kind, and random rows to learn."""

from collections.abc import Sequence

import numpy as np
import torch

from fedit.config import IA3, Lora, LoraXs, Model, Plain, Virtual
from fedit.core.tree import Tree
from fedit.train.adapters import Adapted, attach
from fedit.train.encoded import Encoded
from fedit.train.model import Base, load_base

VOCABULARY = 300
CORPUS = ["we met at ten, had tea and read the paper; then it rained and we went home."] * 3

_COMMON = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "num_attention_heads": 4}
_WIDE = {**_COMMON, "hidden_size": 32, "intermediate_size": 64}
_LLAMA = {**_WIDE, "num_key_value_heads": 2}
_SHORT = {"vocab_size": VOCABULARY, "n_layer": 2, "n_head": 4}

ARCHITECTURES = {
    "llama": _LLAMA,
    "gpt2": {**_SHORT, "n_embd": 32},
    "opt": {**_COMMON, "hidden_size": 32, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "qwen2": _LLAMA,
    "mistral": _LLAMA,
    "gemma2": {**_LLAMA, "head_dim": 8},
    "gpt_neox": _WIDE,
    "bloom": {**_SHORT, "hidden_size": 32},
    "falcon": {**_COMMON, "hidden_size": 32},
    "phi": _WIDE,
    "mixtral": {**_LLAMA, "num_local_experts": 2},
}

OTHERS = {  # for what is theirs alone, not in the suite of every architecture
    "llama4_text": {**_LLAMA, "head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 64},
    "doge": _LLAMA,
    "lfm2": _LLAMA,
}

ADAPTERS = {
    "lora": Lora(rank=4, alpha=8),
    "rslora": Lora(rank=4, alpha=8, rslora=True),
    "dora": Lora(rank=4, alpha=8, dora=True),
    "lora_xs": LoraXs(kind="lora_xs", rank=4, alpha=8),
    "ia3": IA3(kind="ia3"),
    "prefix": Virtual(kind="prefix", tokens=3),
    "prompt": Virtual(kind="prompt", tokens=3),
    "bitfit": Plain(kind="bitfit"),
    "full": Plain(kind="full"),
}
PEFT_KINDS = ("lora", "rslora", "dora", "ia3", "prefix", "prompt")


def made(kind: str = "llama", precision: str = "auto", **more) -> Base:
    """A base of this architecture on the CPU."""
    config = {"model_type": kind, **(ARCHITECTURES | OTHERS)[kind], **more}
    return load_base(Model(config=config, device="cpu", precision=precision), CORPUS)


def adapted(kind: str, adapter: str, seed: int = 0, **options) -> Adapted:
    """A base of this architecture with that adapter on it, in evaluation mode."""
    result = attach(made(kind, **options).model, ADAPTERS[adapter], seed)
    result.model.eval()
    return result


def stirred(tree: Tree, seed: int = 0, by: float = 0.1) -> Tree:
    """The tree with noise on every number: no LoRA factor is zero any more."""
    rng = torch.Generator().manual_seed(seed)
    return {name: t + by * torch.randn(t.shape, generator=rng) for name, t in tree.items()}


def logits(model, length: int = 7) -> torch.Tensor:
    """What the model says to a fixed text, virtual tokens left out: [2, length, vocabulary]."""
    ids = torch.arange(2 * length).reshape(2, length) + 5
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return out[:, -length:]


def rows(*lengths: tuple[int, int], seed: int = 0) -> list[Encoded]:
    """Rows of random tokens; each length is (prompt, answer) and only the answer is learned."""
    rng = np.random.default_rng(seed)
    return [
        Encoded(
            rng.integers(3, 250, prompt + answer, dtype=np.int32),
            np.arange(prompt + answer) >= prompt,
        )
        for prompt, answer in lengths
    ]


def padded(
    chosen: Sequence[Encoded], pad: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids, attention and labels (−100 = not learned) as a textbook writes them."""
    longest = max(len(row.ids) for row in chosen)
    ids = torch.full((len(chosen), longest), pad)
    attention, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, row in enumerate(chosen):
        for j, (token, learn) in enumerate(zip(row.ids.tolist(), row.learn.tolist(), strict=True)):
            ids[i, j], attention[i, j] = token, 1
            labels[i, j] = token if learn else -100
    return ids, attention, labels
