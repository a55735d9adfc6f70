"""Dashboard: pages for staff, behind the admin's login. Only the URLs import it."""
