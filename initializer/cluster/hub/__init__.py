"""The hub: one actor on the head that receives the journals of all nodes, and serves the cluster's metrics and state.

No start-up waits for it. The journals are the source of truth: a thread of each process reads its own journal and sends
the lines that the hub does not have, so a hub that was restarted receives everything again.
"""
