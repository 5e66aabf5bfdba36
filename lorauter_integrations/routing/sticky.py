"""Follow-ups, such as "shorter please", that go where the turn went which they follow. Keeps no conversation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from lorauter_integrations.generation import Message
from lorauter_integrations.routing.encoder import Vectors
from lorauter_integrations.routing.route import Route
from lorauter_integrations.routing.router import Router
from lorauter_integrations.routing.task_index import TaskIndex

MOST_TURNS = 8  # that are looked at, from the last one back
MOST_CHARACTERS = 200  # of a follow-up; pasted texts are not encoded only to see that they stand on their own
FOLLOW_UPS = (
    # another form
    "make that shorter",
    "could you make it longer?",
    "less formal please",
    "say that in German",
    "put it into bullet points",
    "rephrase it",
    "simpler, please",
    "use fewer words",
    "write it again in a friendlier tone",
    "give it to me as one paragraph",
    "Could you rewrite your last answer so that it sounds more polite and is easier to read?",
    # a question about the answer
    "why is that?",
    "how come?",
    "what is that based on?",
    "can you say more about that?",
    "are you certain about this?",
    "what did you mean by that?",
    "please explain how you got there",
    "I do not quite see how you arrived at this; could you go over your reasons?",
    # the same for something else
    "and what about the first one?",
    "and for last year?",
    "what about the others?",
    "how about next week?",
    "now the same for July",
    "and for London?",
    "do the same with the next one",
    "what if it had been three?",
    "only for the ones from Spain",
    "What would the answer be if we changed only the last part of the question?",
    # more
    "please continue",
    "tell me more",
    "one more example",
    "try it once more",
    "what else?",
    "and after that?",
    # a correction
    "no, that is not right",
    "you left something out",
    "I meant the other one",
    "look at it again",
    "that answer is wrong, please correct it",
    "you misread what I wrote",
    "I am afraid this is not what I had in mind; I wanted something quite different.",
    # a word in return
    "yes, please do",
    "okay, thanks",
    "no, leave it",
    "that works, go ahead",
    "fine",
)


class FollowUps:
    """Tells a follow-up from a request that stands on its own, and finds the turn that it follows.

    A turn is a follow-up when one of `FOLLOW_UPS` is nearer to it than every mapped task is, in the index's own
    space: no threshold, so it holds for any encoder and any number of tasks. See docs/routing.md for how often it
    is right. All comes from the conversation itself, so any replica decides alike.

    Args:
        index: the tasks, and the encoder.
    """

    def __init__(self, index: TaskIndex) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._vectors: Vectors | None = None

    def route(
        self, router: Router, messages: Sequence[Message], text_of: Callable[[Sequence[Message]], str]
    ) -> Route:
        """The route of a conversation; of a follow-up that of the turn which it follows.

        Args:
            router: routes the text.
            messages: the conversation.
            text_of: the text of a conversation, or of its beginning up to a turn.

        Raises:
            RoutingError: as the router, and as `text_of`.
        """
        begun, turns = self.followed(messages)
        route = router.route(text_of(begun))
        if not turns:
            return route
        which = "the turn before" if turns == 1 else f"the turn {turns} before"
        return replace(route, reason=f"a follow-up of {which}: {route.reason}")

    def followed(self, messages: Sequence[Message]) -> tuple[Sequence[Message], int]:
        """The conversation up to the user's last turn that stands on its own, and how many turns that is back.

        The first turn stands on its own, and so does the last one that is looked at.
        """
        ends = [place for place, turn in enumerate(messages, 1) if turn.role == "user" and turn.content.strip()]
        ends = ends[-MOST_TURNS:]
        for back, end in enumerate(reversed(ends)):
            if back == len(ends) - 1 or not self.is_follow_up(messages[end - 1].content):
                return (messages[:end], back) if back else (messages, 0)
        return messages, 0  # no user's turn

    def is_follow_up(self, text: str) -> bool:
        """Whether a user's turn follows another one. One encoding; at the first use, those of `FOLLOW_UPS` too."""
        if len(text) > MOST_CHARACTERS:
            return False
        vector = self._index.encoder.encode([text])[0]
        near = self._index.nearest(vector, 1)
        return bool(near) and float((self._examples() @ vector).max()) > near[0].similarity

    def _examples(self) -> Vectors:
        with self._lock:
            if self._vectors is None:
                self._vectors = self._index.encoder.encode(FOLLOW_UPS)
            return self._vectors
