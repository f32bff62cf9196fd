"""A byte-level BPE tokenizer: every text round-trips, there is no unknown token."""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from scripts.pretrain_mini.corpus import Corpus

VOCABULARY = 2048
PAD, BOS, EOS = "<pad>", "<s>", "</s>"
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2

#: Characters of each book the merges are learned from, so that prose does not drown the documentation.
BOOK_CHARACTERS = 100_000


def train_tokenizer(corpus: Corpus, vocabulary: int = VOCABULARY) -> Tokenizer:
    """Learn the merges from the training text: the head of every book, and all documentation."""

    def texts() -> Iterator[str]:
        yield from (book[:BOOK_CHARACTERS] for book in corpus.books)
        yield from corpus.docs

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B:1", special_tokens=[(BOS, BOS_ID)]
    )
    return tokenizer


def wrap(tokenizer: Tokenizer, max_length: int) -> PreTrainedTokenizerFast:
    """As transformers loads it: `<s>` is put before every text, `</s>` never; padding on the left, for generation."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
