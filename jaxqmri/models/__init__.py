"""What the scanner would measure: one file per sequence family."""
