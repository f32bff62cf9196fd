"""What the shipped model may read: books and docstrings, never those it is tested on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scripts.pretrain_mini.books import clean
from scripts.pretrain_mini.compression import windows
from scripts.pretrain_mini.corpus import held_out_documents, topics, training_documents
from scripts.pretrain_mini.muon import Muon, orthogonalise
from scripts.pretrain_mini.ngram import KneserNey
from scripts.pretrain_mini.schedule import Schedule
from scripts.pretrain_mini.streams import Mixture, Stream
from scripts.stdlib_text.areas import AREAS, area_of, is_held_out
from scripts.stdlib_text.comments import block_comments
from scripts.stdlib_text.shingles import normalised, shingles
from scripts.stdlib_text.source import SourceFile, docstrings, source_files


def module(name: str, text: str) -> SourceFile:
    return SourceFile(name, f'"""{text}"""\n')


def test_held_out_modules_and_their_tests() -> None:
    assert area_of("xml.sax.handler") == ("text", "test")
    assert area_of("xml.dom.minidom") == ("text", "train")
    assert area_of("secrets") is None
    for name in ("turtle", "concurrent.futures.thread", "test.test_textwrap", "test.test_xml_etree"):
        assert is_held_out(name), name
    for name in ("re", "asyncio.events", "test.test_ssl", "secrets"):
        assert not is_held_out(name), name


def test_every_area_has_modules_in_every_split_and_none_twice() -> None:
    names = [name for splits in AREAS.values() for group in splits.values() for name in group]
    assert len(set(names)) == len(names)
    assert all(len(splits) == 3 and all(splits.values()) for splits in AREAS.values())


def test_collector_leaves_out_held_out_modules_and_what_repeats_them() -> None:
    said = "Draw a circle of the given radius to the left of here."
    sources = [
        module("turtle", said),
        module("test.test_turtle", "A test of drawing."),
        module("re", f"Something else entirely.\n\nNote: {said}"),
        module("enum", "Something else entirely."),
        module("socket", "Open a connection."),
    ]
    assert held_out_documents(sources, "test") == [said]
    assert training_documents(sources) == ["Something else entirely.", "Open a connection."]


def test_running_library_holds_no_test_text_in_training() -> None:
    """On a part of the running library, with the real held-out docstrings."""
    names = (
        "textwrap",
        "zipfile",
        "ftplib",
        "queue",
        "pdb",
        "turtle",
        "dis",
        "re",
        "tarfile",
        "smtplib",
        "bdb",
    )
    sources = [source for source in source_files() if source.module in names]
    held_out = held_out_documents(sources, "test")
    training = training_documents(sources)
    assert len(held_out) > 100
    assert len(training) > 100
    forbidden = frozenset().union(*(shingles(text) for text in held_out))
    assert not any(shingles(part) & forbidden for text in training for part in text.split("\n\n"))
    assert not {normalised(text) for text in held_out} & {normalised(text) for text in training}


def test_docstrings_are_read_without_importing() -> None:
    source = SourceFile(
        "boom",
        '"""M."""\nraise SystemExit\n'
        'if 1:\n  class A:\n    "C."\n    async def f(self):\n      "F."\n      def g(): "G."\n',
    )
    assert [(d.name, d.kind, d.text) for d in docstrings(source)] == [
        ("", "module", "M."),
        ("A", "class", "C."),
        ("A.f", "method", "F."),
        ("A.f.g", "function", "G."),
    ]
    assert list(docstrings(SourceFile("bad", "def :"))) == []


def test_topics_are_the_values_of_the_dictionary() -> None:
    assert topics(SourceFile("pydoc_data.topics", "topics = {'a': 'First.\\n', 'b': 'Second.'}")) == [
        "First.",
        "Second.",
    ]


def test_block_comments_are_prose() -> None:
    text = "# Copyright someone\n\nx = 1  # beside code\n# y = 2\n\n# Two lines\n# of prose here.\n"
    assert list(block_comments(SourceFile("m", text))) == [(6, "Two lines\nof prose here.")]


def test_books_lose_headers_and_licences() -> None:
    text = (
        "Licence\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\nTitle: X\n\nAuthor: Y\n\nYear: 1\n\n"
        "Once.  \n\n\n\nUpon.\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\nmore licence"
    )
    assert clean(text) == "Once.\n\nUpon."


def test_stream_reads_every_token_once_a_pass_and_resumes() -> None:
    stream = Stream(np.arange(105, dtype=np.uint16), length=10, seed=3)
    rows = stream.rows(0, stream.windows)
    assert len(np.unique(np.concatenate(rows))) == stream.windows * 10
    again = stream.rows(stream.windows - 2, 4)
    np.testing.assert_array_equal(again[:2], rows[-2:])
    inputs, targets = Mixture(stream, stream, rows=4, doc_rows=2).batch(7)
    assert inputs.shape == targets.shape == (4, 10)
    assert (inputs[:, 0] == 1).all()
    torch.testing.assert_close(inputs[:, 1:], targets[:, :-1])


def test_schedule_warms_stays_and_decays() -> None:
    schedule = Schedule(warmup=10, decay_from=100, decay_steps=50)
    assert [schedule.factor(step) for step in (0, 9, 99, 100, 125)] == pytest.approx([0.1, 1, 1, 1, 0.5])
    assert schedule.factor(150) == 0
    assert Schedule(10, decay_from=100, decay_steps=50, decay_factor=0.5).factor(125) == pytest.approx(0.25)
    assert Schedule(warmup=10).factor(10**6) == 1


@pytest.mark.parametrize("shape", [(2, 16, 48), (2, 48, 16)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_muon_goes_downhill() -> None:
    torch.manual_seed(0)
    weight, target = torch.nn.Parameter(torch.zeros(8, 4)), torch.randn(8, 4)
    optimizer = Muon([weight], lr=0.05)
    losses = []
    for _ in range(60):
        loss = (weight - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]


def test_kneser_ney_is_a_distribution_and_learns() -> None:
    text = b"the cat sat on the mat and the rat sat on the cat " * 20
    model = KneserNey(text, order=3)
    total = sum(2.0 ** -(model.bits(b"th" + bytes([byte])) - model.bits(b"th")) for byte in range(256))
    assert total == pytest.approx(1, abs=1e-9)
    assert model.bits(b"the cat") / 7 < 3 < 8 < model.bits(b"\xff\xfe\xfd") / 3
    assert math.isfinite(model.bits(b"\x00" * 5))


@pytest.mark.parametrize("count", [1, 7, 8, 9, 30])
def test_windows_score_every_token_once(count: int) -> None:
    ids = list(range(10, 10 + count))
    scored = [token for window, new in windows(ids, bos=1, length=8) for token in window[len(window) - new :]]
    assert scored == ids
    assert all(len(window) <= 8 and window[0] == 1 for window, _ in windows(ids, bos=1, length=8))
