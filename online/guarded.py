"""Commands that are carried out only while a key holds a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import redis

from online.route import Command
from online.script import Script

GUARDED = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local at = 2
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, at + count))
  at = at + count + 1
end
return 1
""")


class Guard(NamedTuple):
    """What guards commands, and what they may write.

    Attributes:
        key: Must hold a value.
        types: The keys, and of what type each must be if it is there.
    """

    key: bytes
    types: tuple[tuple[bytes, bytes], ...] = ()


class Guarded(NamedTuple):
    """Commands on keys of one slot, whose second word is the key.

    Attributes:
        guard: The key.
        held: What it must hold.
        commands: Carried out in order, all or none.
    """

    guard: bytes
    held: bytes
    commands: Sequence[Command]

    def call(self) -> Command:
        """The call of `GUARDED` that carries them out; it is answered with 1, or 0 where nothing was done."""
        keys: dict[bytes | int, None] = {self.guard: None}
        arguments: list[bytes | int] = [self.held]
        for command in self.commands:
            keys[command[1]] = None
            arguments += [len(command), *command]
        return (len(keys), *keys, *arguments)


def run(client: redis.Redis, guarded: Guarded) -> bool:
    """Carry commands out; returns whether they were.

    Raises:
        StoreReplyError: As `Script.run`.
        StoreUnavailableError: As there.
    """
    (done,) = GUARDED.run(client, [guarded.call()])
    return bool(done)
