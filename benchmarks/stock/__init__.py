"""The baseline: what a team gets from Channels, channels_redis and Daphne as they come."""
