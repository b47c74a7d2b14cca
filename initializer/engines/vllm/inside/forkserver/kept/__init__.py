"""A fork server that stays: it forks whole vLLM commands, front end included, for one start after another.

`address` is its folder, socket and lock; `fingerprint` describes the installation it has imported; `environment` has the
variables that its imports have read; `commands` finds the commands that it can run; `messages` is the protocol; `starting`
starts it; `server` is its loop; `front_end` makes a fork the command; `client` asks for a fork, a state or an end. A request
that fails for any reason ends in an executed command.
"""
