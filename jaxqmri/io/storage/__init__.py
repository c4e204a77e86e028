"""Files as disks hold them: whole or not at all, archives, locks, images larger than the memory."""
