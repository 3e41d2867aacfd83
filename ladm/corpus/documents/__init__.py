"""Names that a user gives, or objects of a program -> documents, in a fixed order."""
