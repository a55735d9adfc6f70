"""Who may open a session and who may call the API."""
