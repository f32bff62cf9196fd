"""The search of the equation: a conditional space from the spec, a study that resumes, a report."""
