"""A small Django project for tests: a shop with orders. Its database is DATABASE_URL's, or set by a fixture."""
