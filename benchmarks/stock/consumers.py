"""A consumer as Channels' tutorial has it: one room, messages by group_send."""

from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer

GROUP = "bench"


class RoomConsumer(AsyncWebsocketConsumer):
    """Joins the group; what is sent to that is sent on. The auth frame is answered, no more."""

    async def connect(self) -> None:
        await self.channel_layer.group_add(GROUP, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:  # noqa: ARG002
        await self.channel_layer.group_discard(GROUP, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:  # noqa: ARG002
        """Answer the auth frame, for the load generator."""
        await self.send(text_data='[{"ver":1,"op":8,"seq":1,"body":{}}]')

    async def room_message(self, event: dict[str, Any]) -> None:
        """A message of the group."""
        await self.send(text_data=event["text"])
