"""What a scanner would measure: one file per sequence family."""
