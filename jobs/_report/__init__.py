"""The report: one self-contained HTML page made from evaluations, their images and the shards they stand on."""
