"""What formats ask of a pretrained model's tokenizer."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """Text to token numbers and back."""

    @property
    def size(self) -> int:
        """Number of tokens, those that were added included."""

    @property
    def pieces(self) -> Mapping[int, Sequence[int]]:
        """Tokens that were added, and the tokens that their text was written in before."""

    @property
    def end(self) -> int:
        """The token that ends a document."""

    def encode(self, text: str) -> list[int]:
        """The text's tokens, with nothing put before or after it."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; the end of a document reads ``<end>``."""

    def token(self, text: str) -> int:
        """The one token that reads as this text; it is added if there is none."""
