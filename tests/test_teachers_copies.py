"""Near-copies of a template are found, and honest rationales with stock phrases are not."""

from __future__ import annotations

import pytest

from teachers.audit.copies import MAX_SHARE, find_copies


def honest(i: int) -> tuple[str, str]:
    """A rationale all of whose words but a stock phrase are its own, and its input."""
    text = f"Rain{i} made street{i} wet{i} and shiny{i}. At the end of the day nobody{i} doubts{i}."
    return text, f"Scene{i} shows street{i} in weather{i}."


def planted(i: int) -> tuple[str, str]:
    quoted = f"dog{i} ran{i} home{i}", f"cat{i} slept{i} well{i}"
    return f"The premise says {quoted[0]}, so {quoted[1]} follows.", ". ".join(quoted)


def near(pairs):
    """Positions of the near-copies, and the templates."""
    copies = find_copies(pairs)
    return {i for i, share in enumerate(copies.shares) if share > MAX_SHARE}, copies.templates


def test_template_filled_with_quotations_is_found_and_shown():
    pairs = [planted(i) if i % 4 == 1 else honest(i) for i in range(40)]
    found, templates = near(pairs)
    assert found == set(range(1, 40, 4))
    assert templates == [("the premise says … so … follows", 10)]


def test_template_with_a_free_word_is_found():
    text = "The passage speaks about {}. It gives a clear reason for this. That settles it."
    pairs = [(text.format(f"word{i}"), "") if i < 10 else honest(i) for i in range(40)]
    found, templates = near(pairs)
    assert found == set(range(10))
    assert templates == [("… it gives a clear reason for this that settles it", 10)]


def test_five_rows_make_a_template():
    for n, found in ((4, set()), (5, set(range(5)))):
        pairs = [planted(i) if i < n else honest(i) for i in range(40)]
        assert near(pairs)[0] == found


def test_in_long_files_more_rows_must_share_a_wording():
    for n, found in ((9, set()), (10, set(range(10)))):
        pairs = [planted(i) if i < n else honest(i) for i in range(20_000)]
        assert near(pairs)[0] == found


def test_what_rows_quote_from_the_same_passage_is_no_template():
    passage = "The old harbour was built in 1820 and burnt down in the great fire of 1890."
    pairs = [(f"{passage[:-1]}, so it{i} stood{i} for{i} long{i}.", passage) for i in range(20)]
    assert near(pairs)[0] == set()
    assert near([(text, "") for text, _ in pairs])[0] == set(range(20))


def test_words_repeated_within_one_row_are_not_common_to_rows():
    pairs = [("and so it goes on and " * 10, "")] + [honest(i) for i in range(10)]
    assert near(pairs)[0] == set()


@pytest.mark.parametrize("pairs", [[], [("", "")], [("one two", ""), ("", "x")]])
def test_nothing_to_compare(pairs):
    copies = find_copies(pairs)
    assert copies.shares.tolist() == [0] * len(pairs)
    assert copies.templates == []
