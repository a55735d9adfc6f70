"""Providers: the services that take notifications to devices."""
