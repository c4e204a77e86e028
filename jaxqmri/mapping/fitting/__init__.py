"""From a series to maps: what all jobs share once one is used."""
