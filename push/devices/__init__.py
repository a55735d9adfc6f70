"""Devices outside the socket: their addresses, and the notifications sent to them."""
