"""Loss terms, one equation each."""
