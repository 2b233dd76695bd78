"""Many trainings and one table: searches, cross-validations, the systems of the papers."""
