"""How far the wording of rationales gives the gold answer away, without a model to ask."""

from __future__ import annotations

from collections.abc import Sequence

FOLDS = 5
MIN_ROWS = 50  # below, the share is mostly chance
FEATURES = 2**18  # hashed words and pairs of words


def guessed_share(rationales: Sequence[str], labels: Sequence[int]) -> float | None:
    """Share of labels that naive Bayes guesses from the words and word pairs of rationales alone.

    Five-fold cross-validated, over shuffled rows. To be compared with the share of the most
    frequent label: what lies above it is leakage that needs no answer words ("so the two uses
    differ"). Rows that share a text and have opposite labels (WSC's pairs) push it below. None for
    fewer than MIN_ROWS rows, or a single label.
    """
    if len(rationales) < MIN_ROWS or len(set(labels)) < 2:
        return None
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.naive_bayes import MultinomialNB

    # Hashing learns nothing from the rows, so it may come before the folds.
    words = HashingVectorizer(n_features=FEATURES, ngram_range=(1, 2), alternate_sign=False)
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    hits = cross_val_score(MultinomialNB(), words.transform(rationales), labels, cv=folds)
    return float(hits.mean())
