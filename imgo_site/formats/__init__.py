"""How the admin writes numbers and times, where Django's way does not do: see its setting."""
