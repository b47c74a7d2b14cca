"""Ray: one file for each thing asked of it. Nobody else imports it."""
