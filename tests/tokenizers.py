"""Small tokenizers of every family, trained on the spot."""

import string
from functools import cache

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "we met at ten, had tea and read the paper; then it rained and we went home.",
    "Below is an instruction that describes a task. Write a response to the request.",
    "### Instruction: name the capital of France\n\n### Input: a map\n\n### Response: Paris",
    "USER: what is 2 + 2? ASSISTANT: it is 4, of course! QUIZ: jvxkqz 0123456789",
] * 4
LETTERS = string.ascii_letters + string.digits + string.punctuation + "\n"

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@cache
def byte_level() -> PreTrainedTokenizerFast:
    """GPT-2-like: byte-level BPE with an eos and nothing else."""
    return _byte_level("<|endoftext|>")


@cache
def byte_level_pad_is_eos() -> PreTrainedTokenizerFast:
    return _byte_level("<|endoftext|>", pad_token="<|endoftext|>")


@cache
def chatml() -> PreTrainedTokenizerFast:
    """Qwen-like: byte-level BPE with a ChatML template."""
    return with_chat_template(CHATML)


def with_chat_template(
    chat_template: str, eos_token: str = "<|im_end|>", extra: tuple[str, ...] = ()
) -> PreTrainedTokenizerFast:
    tokenizer = _byte_level(eos_token)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *extra]})
    tokenizer.chat_template = chat_template
    return tokenizer


@cache
def sentencepiece() -> PreTrainedTokenizerFast:
    """Llama-like: Unigram over Metaspace; puts <s> before a text."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=250,
            special_tokens=["<unk>", "<s>", "</s>"],
            unk_token="<unk>",
            initial_alphabet=list(LETTERS),
            show_progress=False,
        ),
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@cache
def wordpiece() -> PreTrainedTokenizerFast:
    """BERT-like: lower case, [CLS] … [SEP], no eos."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.train_from_iterator(
        [*CORPUS, " ".join(f"a{letter}" for letter in LETTERS)],  # every letter inside a word too
        trainers.WordPieceTrainer(
            vocab_size=400,
            special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"],
            initial_alphabet=list(LETTERS.lower()),
            show_progress=False,
        ),
    )
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
    )


def _byte_level(eos_token: str, **tokens: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        [*CORPUS, "\n\n\n\n"] * 2,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=[eos_token],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos_token, **tokens)


FAMILIES = {
    "byte-level": byte_level,
    "byte-level, pad = eos": byte_level_pad_is_eos,
    "sentencepiece": sentencepiece,
    "wordpiece": wordpiece,
    "chatml": chatml,
}
