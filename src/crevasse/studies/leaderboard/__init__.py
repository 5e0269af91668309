"""The leaderboard: every rule on the same benches, with the same tries and the same passes."""

from crevasse.studies.leaderboard.board import BASELINE, make_board
from crevasse.studies.leaderboard.picking import FOUND

__all__ = ["BASELINE", "FOUND", "make_board"]
