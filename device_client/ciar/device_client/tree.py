"""Drafting a tree in place of a chain: the device offers several ways in which the picture may go on.

In: a drafter and what is decided. Out: a tree of drafts, and a loop that asks about one tree after the other. All else
is the loop's: sessions, resumption, what is final. The device waits for each answer: it cannot know where to go on.
"""

from __future__ import annotations

import heapq
from itertools import count
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ciar.device_client.drafter import Drafts, Proposal
from ciar.device_client.loop import Loop
from ciar.device_client.transport import Session
from ciar.shared.sampling import filtered
from ciar.shared.tree import ROOT
from ciar.shared.types import Sampling, Tokens, TreeDraft, Verdict


class _Leaf(NamedTuple):
    """A token that may become a node; the most confident one sorts first."""

    doubt: float
    """−log of the confidence in it and in all nodes on its way."""
    number: int
    parent: int
    token: int


class Branches:
    """A drafter that may be asked about any branch.

    Its graph holds one row a position, so siblings have to share: whoever looks along another branch than the last time
    has the rows read again from where the two part. That is what a tree costs on this device.
    """

    def __init__(self, drafter: Drafts, num_tokens: int) -> None:
        self._drafter = drafter
        self._seen = np.zeros(num_tokens, np.int64)  # (T,) the tokens that the rows describe
        self._num_rows = 0

    def look(self, tokens: Tokens, position: int) -> Proposal:
        """The drafter's view of `position`; tokens (T,) are known before it."""
        differing = np.flatnonzero(tokens[:position] != self._seen[:position])
        # Row t describes the tokens before t, so the first that differs spoils the rows behind it.
        right = min(self._num_rows, (int(differing[0]) if differing.size else position) + 1)
        if right < position:
            self._drafter.read(tokens, right, position)
        proposal = self._drafter.step(tokens, position)
        self._seen[:position] = tokens[:position]
        self._num_rows = position + 1
        return proposal


def grow(branches: Branches, tokens: Tokens, start: int, num_nodes: int, sampling: Sampling) -> tuple[Tokens, Tokens]:
    """The `num_nodes` most confident continuations of tokens[:start], as a tree: its tokens and parents, (N,) each.

    As in EAGLE-2 (Li et al., arXiv 2406.16858) the tree grows where its leaves are most confident, by the product of
    the drafter's probabilities on the way, after temperature and cuts; here leaf by leaf, so the nodes are the best of
    all. The noise that the cloud will draw with is known here too, but not used: it was tried, and did not help.
    """
    path_tokens = tokens.copy()  # (T,)
    nodes: list[int] = []
    parents: list[int] = []
    leaves: list[_Leaf] = []
    numbers = count()

    def expand(node: int, doubt: float) -> None:
        path = _path(nodes, parents, node)
        position = start + len(path)
        if position == len(tokens):
            return
        path_tokens[start:position] = path
        center = branches.look(path_tokens, position).center
        for token, confidence in _offers(filtered(center, sampling), num_nodes - len(nodes)):
            heapq.heappush(leaves, _Leaf(doubt - confidence, next(numbers), node, token))

    expand(ROOT, 0.0)
    while leaves and len(nodes) < num_nodes:
        leaf = heapq.heappop(leaves)
        nodes.append(leaf.token)
        parents.append(leaf.parent)
        if len(nodes) < num_nodes:
            expand(len(nodes) - 1, leaf.doubt)
    return np.array(nodes, np.int64), np.array(parents, np.int64)


def _path(nodes: list[int], parents: list[int], node: int) -> list[int]:
    path = []
    while node != ROOT:
        path.append(nodes[node])
        node = parents[node]
    return path[::-1]


def _offers(scores: NDArray[np.float32], most: int) -> list[tuple[int, float]]:
    """The strongest tokens of scores (V,) with their log-confidences, strongest first."""
    most = min(most, scores.size)
    best = np.argpartition(-scores, most - 1)[:most]
    best = best[np.argsort(-scores[best], kind="stable")]
    top = float(scores[best[0]])
    total = top + float(np.log(np.exp(scores - top, dtype=np.float64).sum()))
    return [(int(token), float(scores[token]) - total) for token in best if np.isfinite(scores[token])]


class TreeLoop(Loop):
    """Draws one picture by trees: draft a tree → ask → receive what the cloud drew along it."""

    def __init__(self, *arguments: Any, num_nodes: int, **parts: Any) -> None:
        """num_nodes: of a tree, at most; all else as of `Loop`, whose gate is never asked."""
        super().__init__(*arguments, **parts)
        self._branches = Branches(self._drafter, self._track.num_tokens)
        self._num_nodes = num_nodes

    def _prepare(self) -> None:
        """Nothing: trees grow without noise."""

    def _draft(self) -> None:
        """Draft a tree behind what is final."""
        track, began = self._track, perf_counter()
        num_nodes = min(self._num_nodes, track.num_tokens - track.committed_end)
        nodes = grow(self._branches, track.tokens, track.committed_end, num_nodes, self._request.sampling)
        self._tree = TreeDraft(track.epoch, track.committed_end, *nodes)
        self.account.drafting_s += perf_counter() - began

    def _ask(self, session: Session) -> None:
        self._track.add_tree(self._tree)
        session.send(self._tree)

    def _receive(self, session: Session) -> None:
        self._track.settle_tree(self._tree, self._expect(session, Verdict))
