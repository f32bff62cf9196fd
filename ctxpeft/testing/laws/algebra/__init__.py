"""Laws of the equations, one a file: random heads in float64, no model."""
