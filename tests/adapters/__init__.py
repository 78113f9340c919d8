"""The low-rank adapters, without a method around them."""
