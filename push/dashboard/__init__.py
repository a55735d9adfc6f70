"""What operators look at: pages for staff, over the admin's login. Nothing imports it but urls."""
