"""What every law says of itself: the page of laws and `ctxpeft check` print nothing else."""

from ctxpeft.testing.laws import laws


def test_each_is_one_sentence_with_an_equation_and_a_source() -> None:
    for law in laws():
        assert law.statement[0].isupper(), law.id
        assert law.statement.endswith("."), law.id
        assert len(law.statement) <= 110, law.id
        assert law.equation, law.id
        assert law.source, law.id
