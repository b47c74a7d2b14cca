"""The hub: an actor beside the driver that receives the journals of all nodes and serves the cluster's metrics and state.

No start waits for the hub. The journals are the source of truth: a thread of each process reads its own journal and sends
the lines that the hub does not have, so a restarted hub receives everything again.
"""
