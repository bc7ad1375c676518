"""Question sets, grading of answers, and the query log."""
