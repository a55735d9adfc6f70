"""A project that lives beside imgo, for the scenario `outbox`. Nothing of the server is in it."""
