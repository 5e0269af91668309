"""Finite automata, and what every constructed learner needs to know of one."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crevasse.models.base import Model
from crevasse.models.layers import Head
from crevasse.spec import require

Ints = NDArray[np.int64]
State = TypeVar("State", bound=Hashable)

#: Logit of the right answer; all others have 0.
SHARP = 20.0


class Terms(NamedTuple):
    """The step as a sum: in state ∈ P, on a symbol ∈ A, go to `target`. Exactly one term holds at each step."""

    of_state: Tensor  # (term, state) 1 for the states of P
    of_kind: Tensor  # (term, kind) 1 for the kinds of symbols of A
    target: Tensor  # (term,)

    @property
    def to_state(self) -> Tensor:
        """(state, term) 1 where the term leads there"""
        return nn.functional.one_hot(self.target, self.of_state.shape[1]).T.float()


@dataclass(frozen=True, eq=False)
class Automaton:
    """A finite automaton over token numbers, and the token that each state answers with.

    Tokens that are not listed change nothing. Raises UserError for arrays that do not fit together.
    """

    table: Ints  # (state, symbol) the next state
    first: Ints  # (symbol,) the state after that symbol as the first token
    tokens: Ints  # (symbol,) its token number
    answers: Ints  # (state,) the token number that it is read out as

    def __post_init__(self) -> None:
        states, symbols = self.table.shape
        require(
            self.first.shape == self.tokens.shape == (symbols,) and self.answers.shape == (states,),
            f"a table of {states} states and {symbols} symbols takes as many answers, first states and tokens",
        )
        reached = np.concatenate([self.table.ravel(), self.first])
        require(
            bool(((reached >= 0) & (reached < states)).all()),
            f"states of an automaton are numbered from 0 to {states - 1}",
        )
        require(len(set(self.tokens.tolist())) == symbols, "each symbol of an automaton takes a token of its own")

    @property
    def states(self) -> int:
        return len(self.table)

    @cached_property
    def _kinds(self) -> tuple[Ints, Ints]:
        """The different symbols, as rows (first state, next states), and which of them each symbol is.

        The last symbol stands for all tokens that are not listed.
        """
        still = np.arange(self.states)
        same = np.flatnonzero((self.table == still[:, None]).all(0))
        start = self.first[same[0]] if len(same) else 0  # never asked for, so it may be that of a symbol there is
        rows = np.vstack([np.column_stack([self.first, self.table.T]), [start, *still]])
        kinds, kind = np.unique(rows, axis=0, return_inverse=True)
        return kinds, kind.ravel()

    @property
    def kinds(self) -> int:
        """How many different symbols there are, all that change nothing included."""
        return len(self._kinds[0])

    @property
    def starts(self) -> Tensor:
        """(kind,) the state after it as the first token"""
        return torch.from_numpy(self._kinds[0][:, 0].copy())

    def kind_of_tokens(self, vocabulary: int) -> Tensor:
        """(token,) the kind of each token"""
        require(
            bool(((self.tokens >= 0) & (self.tokens < vocabulary)).all()),
            f"tokens of this model are numbered from 0 to {vocabulary - 1}",
        )
        kinds = np.full(vocabulary, self._kinds[1][-1])
        kinds[self.tokens] = self._kinds[1][:-1]
        return torch.from_numpy(kinds)

    @cached_property
    def terms(self) -> Terms:
        """The fewer of two ways to write the step: by (state, next state), or by (action, next state).

        The first is at most the square of the states, the second little where symbols lead many states to one.
        """
        steps = self._kinds[0][:, 1:].T  # (state, kind)
        action = np.unique(steps, axis=1, return_inverse=True)[1].ravel()
        state = np.broadcast_to(np.arange(self.states)[:, None], steps.shape)
        keys = [np.stack([k, steps], -1).reshape(-1, 2) for k in (state, np.broadcast_to(action, steps.shape))]
        target, term = min((_numbered(k) for k in keys), key=lambda found: len(found[0]))
        term = term.reshape(steps.shape)
        of_state, of_kind = torch.zeros(len(target), steps.shape[0]), torch.zeros(len(target), steps.shape[1])
        for s, k in np.ndindex(steps.shape):
            of_state[term[s, k], s] = of_kind[term[s, k], k] = 1
        return Terms(of_state, of_kind, torch.from_numpy(target))

    def read_out(self, model: Model, of_state: Tensor, offset: Tensor | None = None) -> None:
        """Let the model's head read answers off hidden states. Raises UserError for a token that it never writes.

        of_state (state, width), offset (state,): their map of a hidden state is 1 for the state it means, else 0.
        """
        head = model.head
        assert isinstance(head, Head)
        require(
            bool(((self.answers >= head.silent) & (self.answers < head.silent + head.out_features)).all()),
            f"this model writes tokens from {head.silent} to {head.silent + head.out_features - 1}",
        )
        rows = torch.from_numpy(self.answers - head.silent)
        head.weight.index_add_(0, rows, SHARP * of_state)
        if offset is not None:
            head.bias.index_add_(0, rows, SHARP * offset)


def _numbered(keys: Ints) -> tuple[Ints, Ints]:
    """(each, (who, target)) -> the targets of the different keys, and which of them each one is"""
    different, which = np.unique(keys, axis=0, return_inverse=True)
    return different[:, 1].copy(), which.ravel()


def explore(
    first: Sequence[State], step: Callable[[State, int], State], tokens: Iterable[int], answer: Callable[[State], int]
) -> Automaton:
    """The automaton of a step function, of all states that can be reached.

    first: the state after each symbol as the first token; step (state, symbol's place in `first`) -> next state;
    tokens: the symbols' token numbers; answer: the token number that a state is read out as.
    """
    number = {state: i for i, state in enumerate(dict.fromkeys(first))}
    states, rows = list(number), []
    for state in states:  # grows while it is read
        row = [step(state, symbol) for symbol in range(len(first))]
        for new in row:
            if new not in number:
                number[new] = len(states)
                states.append(new)
        rows.append([number[new] for new in row])
    whole = [rows, [number[s] for s in first], list(tokens), [answer(s) for s in states]]
    return Automaton(*(np.array(part, np.int64) for part in whole))


def cleared(model: nn.Module) -> dict[str, Any]:
    """The model's parameters by name, all set to zero."""
    parameters = dict(model.named_parameters())
    for parameter in parameters.values():
        parameter.zero_()
    return parameters
