"""NIfTI images with the sidecars of dcm2niix or BIDS."""
