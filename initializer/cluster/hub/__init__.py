"""The hub: one actor on the head that hears of every node, and serves the cluster's metrics and state.

Nobody waits for it. The nodes' journals are the truth: a thread of each process reads its own and sends what the hub
has not had, so that a hub that died and came back is told everything again.
"""
