"""Ray: one file for each part of its public and private interface. Other packages use these parts only through this one."""
