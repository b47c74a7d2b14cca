"""The start of a cluster: `initialize_cluster`, and the processes that it starts on the nodes.

`start` runs the driver's phases; `engines` starts the nodes and detects lost ones; `node_actor` and `node_runtime` run on
each node; `hub` serves the metrics and the state of all nodes.
"""

from phasebus.initializer.cluster.config import ClusterConfig, load_cluster_config
from phasebus.initializer.cluster.events import NodeConflictError, NodeLostError, PostCluster, PreCluster
from phasebus.initializer.cluster.nodes import ClusterNode
from phasebus.initializer.cluster.start import Cluster, initialize_cluster

__all__ = [
    "Cluster",
    "ClusterConfig",
    "ClusterNode",
    "NodeConflictError",
    "NodeLostError",
    "PostCluster",
    "PreCluster",
    "initialize_cluster",
    "load_cluster_config",
]
