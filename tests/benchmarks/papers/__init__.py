"""The tables of the four papers in miniature: run, judge claim by claim, and write one page."""
