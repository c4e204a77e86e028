"""From files to files: run a job, record how it was done, a whole BIDS dataset, the demo."""
