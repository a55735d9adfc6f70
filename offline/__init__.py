"""What is owed to whom: messages, and the keys that have not had them yet."""
