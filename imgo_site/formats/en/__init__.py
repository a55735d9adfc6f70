"""For the one language of the site."""
