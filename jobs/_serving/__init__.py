"""A set of personalized identities as one MLflow model that draws from a prompt."""
