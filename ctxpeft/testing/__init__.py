"""Laws and conformance classes that our tests subclass, and that third parties subclass for their own blocks."""
