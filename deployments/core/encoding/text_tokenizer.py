"""Text to token ids, without torch or transformers, from as many threads as one likes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from deployments.core.encoding.text_encoder import TextKind, Tokens

if TYPE_CHECKING:
    import tokenizers

Int64s = npt.NDArray[np.int64]


class TextTokenizer:
    """A `tokenizers.Tokenizer` with the model's prompts, limit and padding.

    It must not be shared with code that sets truncation or padding, as transformers does for each
    call: that isn't safe while another thread tokenises.
    """

    def __init__(
        self,
        tokenizer: "tokenizers.Tokenizer",
        *,
        max_tokens: int,
        prompts: Mapping[TextKind, str],
        pad_id: int,
        pad_left: bool = False,
        truncate_left: bool = False,
    ) -> None:
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens, direction="left" if truncate_left else "right")
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.prompts: dict[TextKind, str] = {
            "query": prompts.get("query", ""),
            "document": prompts.get("document", ""),
        }
        self.pad_id = pad_id
        self.pad_left = pad_left
        self.truncate_left = truncate_left

    def tokenize(self, texts: Sequence[str], kind: TextKind) -> list[Tokens]:
        """One Tokens for each text."""
        prompt = self.prompts[kind]
        encodings = self._tokenizer.encode_batch_fast([prompt + text for text in texts])
        return [
            Tokens(tuple(encoding.ids), truncated=bool(encoding.overflowing))
            for encoding in encodings
        ]

    def pad(self, tokens: Sequence[Tokens]) -> tuple[Int64s, Int64s]:
        """Ids and attention mask of shape (len(tokens), longest), int64."""
        longest = max(map(len, tokens))
        ids = np.full((len(tokens), longest), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(tokens), longest), dtype=np.int64)
        for i, one in enumerate(tokens):
            columns = slice(longest - len(one), None) if self.pad_left else slice(len(one))
            ids[i, columns] = one.ids
            mask[i, columns] = 1
        return ids, mask

    def vocabulary(self) -> list[str]:
        """All tokens, sorted."""
        return sorted(self._tokenizer.get_vocab())

    def to_json(self) -> str:
        """The tokenizer in the format of tokenizer.json."""
        return str(self._tokenizer.to_str())
