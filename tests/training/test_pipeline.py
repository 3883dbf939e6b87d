"""What a run refuses before hours are spent."""

from __future__ import annotations

import pytest

from ciar.shared.conditioning import CaptionVocabulary
from ciar.training.pipeline import require_own, require_tokenizer
from ciar.training.settings import CloudShape, RunConfig
from ciar.training.tokenizer import Tokenizer, TokenizerConfig

TOKENIZER = TokenizerConfig(vocab_size=64, encoder_width=8, decoder_width=8, num_blocks=0)
WORDS = CaptionVocabulary(length=4, phrases=("bell", "heart"))


@pytest.mark.parametrize(
    ("tokenizer", "num_phrases", "length", "message"),
    [
        (TOKENIZER.model_copy(update={"vocab_size": 96}), 2, 4, r"vocab_size is 96, and 64 in tokenizer\.pt"),
        (TOKENIZER.model_copy(update={"grid": 8}), 2, 4, r"grid is 8, and 16 in tokenizer\.pt"),
        (TOKENIZER, 2, 6, r"caption_length is 6, and 4 in captions\.json"),
        (TOKENIZER, 3, 4, r"num_phrases is 3, and 2 in captions\.json"),
    ],
)
def test_a_cloud_checkpoint_that_does_not_match_is_refused_with_both_numbers(
    tokenizer: TokenizerConfig, num_phrases: int, length: int, message: str
) -> None:
    require_own(CloudShape().complete(TOKENIZER, 2, 4), TOKENIZER, WORDS)
    with pytest.raises(ValueError, match=message):
        require_own(CloudShape().complete(tokenizer, num_phrases, length), TOKENIZER, WORDS)


def test_a_tokenizer_of_another_kind_or_shape_is_refused() -> None:
    config = RunConfig(name="x", tokenizer=TOKENIZER)
    require_tokenizer(Tokenizer(TOKENIZER), "icons", config)
    with pytest.raises(ValueError, match="trained on icons, the data set holds pictures"):
        require_tokenizer(Tokenizer(TOKENIZER), "pictures", config)
    other = TOKENIZER.model_copy(update={"code_dim": 4})
    with pytest.raises(ValueError, match=r"tokenizer\.code_dim was 4 and is 8"):
        require_tokenizer(Tokenizer(other), "icons", config)
