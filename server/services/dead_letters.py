"""The dead-letter log as operators see it: paged, and published anew."""

from __future__ import annotations

from collections.abc import Sequence

from server import status
from server.errors import InvalidRequestError
from server.services.events import EventService
from server.values import timestamp
from streaming.dead_letters import DeadLetters, Letter
from streaming.events import EventSchema
from waypost.admin.v1 import admin_pb2
from waypost.events.v1 import events_pb2

MAX_LETTERS = 1_000
LETTERS_PER_PAGE = 100
MAX_PAGES_PER_CALL = 20
MAX_ANSWER_BYTES = 3 << 20
"""Clients of gRPC take 4 MiB if they are not told otherwise."""


class DeadLetterDesk:
    """Answers what AdminService is asked of dead letters.

    Args:
        letters: The dead-letter log.
        events: Takes what is redriven, `max_events` at once.
        schema: The repo's event types.
    """

    def __init__(
        self, letters: DeadLetters, events: EventService, schema: EventSchema, max_events: int
    ) -> None:
        self._letters = letters
        self._events = events
        self._schema = schema
        self._max_redriven = min(MAX_LETTERS, max_events)

    async def show(self, request: admin_pb2.ListDeadLettersRequest) -> admin_pb2.ListDeadLettersResponse:
        """A page of dead letters, or those named; a page ends before it would be too large for an answer.

        Raises:
            InvalidRequestError: For too many, for more than an answer holds, or an id that is none.
        """
        limit = request.limit or LETTERS_PER_PAGE
        if not 0 < limit <= MAX_LETTERS or len(request.ids) > MAX_LETTERS:
            raise InvalidRequestError.of(
                "FIELD_OUT_OF_RANGE", "limit", f"asks for too many letters, at most {MAX_LETTERS}"
            )
        total = sum((await self._letters.counts()).values())
        if request.ids:
            found = [await self._letters.get(letter_id) for letter_id in request.ids]
            letters, behind = [letter for letter in found if letter is not None], ""
        else:
            letters, behind = await self._page(request.after, request.reason, limit)
        shown = [self._letter(letter) for letter in letters]
        fitting = _fitting(shown)
        if fitting < len(shown):
            if request.ids:
                raise InvalidRequestError.of(
                    "FIELD_OUT_OF_RANGE", "ids", f"names more than an answer holds: the first {fitting} fit"
                )
            shown, behind = shown[:fitting], shown[fitting - 1].id
        return admin_pb2.ListDeadLettersResponse(letters=shown, next=behind, total=total)

    async def redrive(
        self, request: admin_pb2.RedriveDeadLettersRequest
    ) -> admin_pb2.RedriveDeadLettersResponse:
        """Publish letters anew; those accepted leave the log.

        Raises:
            InvalidRequestError: For none, or too many.
        """
        if not 0 < len(request.ids) <= self._max_redriven:
            raise InvalidRequestError.of(
                "FIELD_OUT_OF_RANGE", "ids", f"must name 1 to {self._max_redriven} letters"
            )
        events: dict[int, events_pb2.Event] = {}
        answers: list[events_pb2.PublishResult] = []
        for index, letter_id in enumerate(request.ids):
            letter = await self._letters.get(letter_id)
            event = self._event(letter) if letter is not None and letter.is_whole else None
            if event is not None:
                events[index] = event
            what = _why_not(letter)
            error = InvalidRequestError.of("FIELD_OUT_OF_RANGE", f"ids[{index}]", what)
            answers.append(events_pb2.PublishResult(error=status.to_status(error)))
        published = await self._events.publish(list(events.values()), again=True)
        for index, result in zip(events, published.results, strict=True):
            answers[index] = result
        done = [request.ids[index] for index in events if answers[index].accepted]
        if done:
            await self._letters.remove(done)
        return admin_pb2.RedriveDeadLettersResponse(results=answers, accepted_count=published.accepted_count)

    async def _page(self, after: str, reason: str, limit: int) -> tuple[list[Letter], str]:
        """Letters of a reason: at most `limit`, out of at most so many looked at that a call stays short."""
        kept: list[Letter] = []
        for _ in range(MAX_PAGES_PER_CALL):
            try:
                page = await self._letters.page(after, MAX_LETTERS if reason else limit)
            except ValueError as error:
                raise InvalidRequestError.of("FIELD_OUT_OF_RANGE", "after", str(error)) from error
            if not page:
                return kept, ""
            for letter in page:
                after = letter.id
                if not reason or letter.reason == reason:
                    kept.append(letter)
                if len(kept) == limit:
                    return kept, after
        return kept, after

    def _letter(self, letter: Letter) -> admin_pb2.DeadLetter:
        return admin_pb2.DeadLetter(
            id=letter.id,
            reason=letter.reason,
            field=letter.field,
            detail=letter.detail,
            arrived=timestamp(letter.arrived_us),
            event=self._event(letter),
            original=letter.original,
        )

    def _event(self, letter: Letter) -> events_pb2.Event | None:
        if letter.record is not None:
            return self._schema.to_proto(letter.record)
        return events_pb2.Event.FromString(letter.sent) if letter.sent is not None else None


def _fitting(letters: Sequence[admin_pb2.DeadLetter]) -> int:
    """How many of the first letters fit into an answer; one always does."""
    total = 0
    for number, letter in enumerate(letters):
        total += letter.ByteSize()
        if number and total > MAX_ANSWER_BYTES:
            return number
    return len(letters)


def _why_not(letter: Letter | None) -> str:
    """What stands in the way of publishing a letter again."""
    if letter is None:
        return "is not there any more"
    return (
        "is no readable event: mend and publish it"
        if letter.is_whole
        else "is kept in part: publish it whole"
    )
