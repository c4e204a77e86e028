"""DICOM images in, classic and Enhanced; maps as DICOM Parametric Map objects out."""
