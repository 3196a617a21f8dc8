"""Tests of `perception.text`."""

import pytest
import torch

from perception import TextConfig, TextSpec
from perception.text import TextEncoder

SPEC = TextSpec(length=5, vocabulary=20)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    encoder = TextEncoder(SPEC, TextConfig(text_features=7, embedding_size=6))
    with torch.no_grad():
        encoder.query.normal_()
    return encoder


def test_features_are_those_of_a_loop_over_words(encoder):
    tokens = torch.randint(20, (50, 5), dtype=torch.int32)
    tokens[0] = 0
    for text, features in zip(tokens, encoder(tokens), strict=True):
        words = [encoder.words.weight[t] + encoder.places[k] for k, t in enumerate(text) if t]
        mean = torch.zeros(6)
        if words:
            scores = torch.stack([word @ encoder.query / 6**0.5 for word in words]).exp()
            mean = sum(s / scores.sum() * w for s, w in zip(scores, words, strict=True))
        torch.testing.assert_close(features, encoder.output(mean).relu())


def test_the_order_of_words_matters(encoder):
    one, other = torch.tensor([[3, 4, 0, 0, 0]]), torch.tensor([[4, 3, 0, 0, 0]])
    assert not torch.allclose(encoder(one), encoder(other))


def test_a_word_is_learned_to_be_told_from_others(encoder):
    model = torch.nn.Sequential(encoder, torch.nn.Linear(7, 1))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(150):
        tokens = torch.randint(20, (64, 5))
        there = (tokens == 7).any(1)
        tokens[:16, 2], there[:16] = 7, True
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            model(tokens)[:, 0], there.float()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens = torch.randint(20, (500, 5))
    assert ((model(tokens)[:, 0] > 0) == (tokens == 7).any(1)).float().mean() > 0.95


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="embedding_size must be at least 1, got 0"):
        TextConfig(embedding_size=0)
    with pytest.raises(ValueError, match="a text of 0 of 9 tokens is impossible"):
        TextSpec(length=0, vocabulary=9)
