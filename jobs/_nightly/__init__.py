"""What ``nightly`` is made of: entrants, pins, the decision, the history, the webhook, the page."""
